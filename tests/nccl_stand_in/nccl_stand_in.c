#define _GNU_SOURCE /* memfd_create */

#include "tests/nccl_stand_in/nccl_stand_in.h"

#include <nccl.h>

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define MAX_RANKS  16
#define SLOT_BYTES ((size_t)1 << 18)

/* What the ranks share. */
typedef struct Shared {
    _Atomic int joined;
    _Atomic int failed; /* a rank has met an error */
    _Atomic uint64_t arrived[MAX_RANKS];
    char slots[MAX_RANKS][SLOT_BYTES];
} Shared;

typedef enum Kind { WORK_INIT, WORK_ALL_REDUCE, WORK_BROADCAST, WORK_ALL_GATHER, WORK_FINALIZE } Kind;

typedef struct Work {
    Kind kind;
    const void *in;
    void *out;
    size_t count;
    ncclDataType_t type;
    ncclRedOp_t op;
    int root;
    const char *fault; /* injected here, or NULL */
} Work;

struct ncclComm {
    Shared *shared;
    int rank, world, calls;
    uint64_t meetings;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    Work work;
    bool has_work, stop, finalized;
    _Atomic int state; /* ncclResult_t */
    _Atomic int aborted;
    char error[200];
};

/* The stream of the process: operations issued, operations ended. */
static _Atomic int64_t issued, ended;

int nccl_stand_in_idle(void) { return atomic_load(&issued) == atomic_load(&ended); }

static void sleep_ms(long ms) { nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL); }

/* The fault for this rank at this call, or NULL. *number: CALL. */
static const char *fault_at(int rank, int call, bool init, long *number) {
    static char kind[32];
    int at_rank, at_call;
    const char *text = getenv("NCCL_STAND_IN_FAULT");
    if (!text || sscanf(text, "%31s %d %d", kind, &at_rank, &at_call) != 3 || at_rank != rank) return NULL;
    if (init != (strncmp(kind, "init-", 5) == 0)) return NULL;
    if (number) *number = at_call;
    return init || at_call == call ? kind : NULL;
}

static bool is(const char *fault, const char *kind) { return fault && strcmp(fault, kind) == 0; }

/* For the test that measures from here how long the ranks take to end. */
static void announce_fault(void) {
    struct timespec now;
    char line[64];
    clock_gettime(CLOCK_REALTIME, &now);
    int length = snprintf(line, sizeof line, "fault at %lld ms\n", (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000);
    if (write(STDERR_FILENO, line, (size_t)length) < 0) return;
}

/* Ends with false when a rank failed or this communicator is aborted. */
static bool meet(ncclComm_t comm) {
    uint64_t meeting = ++comm->meetings;
    atomic_store(&comm->shared->arrived[comm->rank], meeting);
    for (int rank = 0; rank < comm->world; ++rank)
        while (atomic_load(&comm->shared->arrived[rank]) < meeting) {
            if (atomic_load(&comm->aborted) || atomic_load(&comm->shared->failed)) return false;
            nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
        }
    return true;
}

static size_t type_bytes(ncclDataType_t type) {
    switch (type) {
    case ncclInt8: return 1;
    case ncclInt32:
    case ncclFloat32: return 4;
    case ncclInt64: return 8;
    default: return 0;
    }
}

/* out[n] = the slots of all ranks together, in rank order. */
static void reduce_slots(const ncclComm_t comm, const Work *work, void *out, size_t n) {
    size_t bytes = n * type_bytes(work->type);
    memcpy(out, comm->shared->slots[0], bytes);
    for (int rank = 1; rank < comm->world; ++rank) {
        const void *slot = comm->shared->slots[rank];
        if (work->type == ncclInt64)
            for (size_t i = 0; i < n; ++i) ((int64_t *)out)[i] += ((const int64_t *)slot)[i];
        else if (work->type == ncclFloat32)
            for (size_t i = 0; i < n; ++i) ((float *)out)[i] += ((const float *)slot)[i];
        else
            for (size_t i = 0; i < n; ++i)
                if (((int32_t *)out)[i] < ((const int32_t *)slot)[i]) ((int32_t *)out)[i] = ((const int32_t *)slot)[i];
    }
}

static void take_slots(const ncclComm_t comm, const Work *work, size_t done, size_t n) {
    size_t element = type_bytes(work->type);
    char *out = (char *)work->out + done * element;
    if (work->kind == WORK_ALL_REDUCE)
        reduce_slots(comm, work, out, n);
    else if (work->kind == WORK_BROADCAST)
        memcpy(out, comm->shared->slots[work->root], n * element);
    else
        for (int rank = 0; rank < comm->world; ++rank)
            memcpy((char *)work->out + ((size_t)rank * work->count + done) * element, comm->shared->slots[rank], n * element);
}

static bool run_collective(ncclComm_t comm, const Work *work) {
    size_t element = type_bytes(work->type), piece = SLOT_BYTES / element;
    for (size_t done = 0; done < work->count; done += piece) {
        size_t n = work->count - done < piece ? work->count - done : piece;
        if (work->kind != WORK_BROADCAST || work->root == comm->rank)
            memcpy(comm->shared->slots[comm->rank], (const char *)work->in + done * element, n * element);
        if (!meet(comm)) return false;
        take_slots(comm, work, done, n);
        if (!meet(comm)) return false;
    }
    return true;
}

static void hang(ncclComm_t comm) {
    while (!atomic_load(&comm->aborted)) sleep_ms(1);
}

static void set_error(ncclComm_t comm, ncclResult_t result, const char *text) {
    snprintf(comm->error, sizeof comm->error, "%s", text);
    atomic_store(&comm->state, result);
}

static void fail_here(ncclComm_t comm) {
    set_error(comm, ncclUnhandledCudaError, "stand-in: injected error");
    atomic_store(&comm->shared->failed, 1);
}

static void join_ranks(ncclComm_t comm, const char *fault) {
    if (fault) announce_fault();
    if (is(fault, "init-hang")) hang(comm);
    if (is(fault, "init-error")) {
        set_error(comm, ncclSystemError, "stand-in: injected error");
        return;
    }
    long ms = 0;
    if (is(fault_at(comm->rank, 0, true, &ms), "init-slow")) sleep_ms(ms);
    if (meet(comm)) atomic_store(&comm->state, ncclSuccess);
}

static void run_work(ncclComm_t comm, const Work *work) {
    if (work->kind == WORK_INIT) {
        join_ranks(comm, work->fault);
        return;
    }
    if (work->kind == WORK_FINALIZE) {
        if (meet(comm)) atomic_store(&comm->state, ncclSuccess);
        return;
    }
    sleep_ms(1);                             /* still in progress: connections are made */
    atomic_store(&comm->state, ncclSuccess); /* issued; from here on only the stream tells */
    if (work->fault) announce_fault();
    if (is(work->fault, "exit")) _exit(9);
    if (is(work->fault, "hang")) hang(comm);
    if (is(work->fault, "error") || is(work->fault, "stuck"))
        fail_here(comm);
    else if (!run_collective(comm, work) && !atomic_load(&comm->aborted))
        set_error(comm, ncclRemoteError, "stand-in: a peer failed");
    atomic_fetch_add(&ended, 1); /* ended work leaves the stream empty, good or not */
}

static void *serve(void *argument) {
    ncclComm_t comm = argument;
    for (;;) {
        pthread_mutex_lock(&comm->lock);
        while (!comm->has_work && !comm->stop) pthread_cond_wait(&comm->wake, &comm->lock);
        bool stop = comm->stop && !comm->has_work;
        Work work = comm->work;
        comm->has_work = false;
        pthread_mutex_unlock(&comm->lock);
        if (stop) return NULL;
        run_work(comm, &work);
    }
}

static void give(ncclComm_t comm, const Work *work) {
    atomic_store(&comm->state, ncclInProgress);
    pthread_mutex_lock(&comm->lock);
    comm->work = *work;
    comm->has_work = true;
    pthread_cond_signal(&comm->wake);
    pthread_mutex_unlock(&comm->lock);
}

static void release(ncclComm_t comm) {
    pthread_mutex_lock(&comm->lock);
    comm->stop = true;
    pthread_cond_signal(&comm->wake);
    pthread_mutex_unlock(&comm->lock);
    pthread_join(comm->thread, NULL);
    munmap(comm->shared, sizeof *comm->shared);
    free(comm);
}

ncclResult_t ncclGetVersion(int *version) {
    *version = NCCL_VERSION_CODE;
    return ncclSuccess;
}

/* The others open the memory through this process, so that nothing is left behind whatever becomes of the job. */
ncclResult_t ncclGetUniqueId(ncclUniqueId *id) {
    int file = memfd_create("nccl_stand_in", 0);
    if (file < 0 || ftruncate(file, sizeof(Shared)) != 0) return ncclSystemError;
    memset(id, 0, sizeof *id);
    snprintf(id->internal, sizeof id->internal, "/proc/%d/fd/%d", (int)getpid(), file);
    return ncclSuccess;
}

static Shared *map_shared(const ncclUniqueId *id) {
    int file = open(id->internal, O_RDWR | O_CLOEXEC);
    if (file < 0) return NULL;
    Shared *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    return shared == MAP_FAILED ? NULL : shared;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *out, int world, ncclUniqueId id, int rank, ncclConfig_t *config) {
    *out = NULL;
    if (config->magic != 0xcafebeef || config->size != sizeof *config || config->blocking != 0) return ncclInvalidArgument;
    if (world > MAX_RANKS || rank < 0 || rank >= world) return ncclInvalidArgument;
    ncclComm_t comm = calloc(1, sizeof *comm);
    if (!comm || !(comm->shared = map_shared(&id))) {
        free(comm);
        return ncclSystemError;
    }
    comm->rank = rank;
    comm->world = world;
    pthread_mutex_init(&comm->lock, NULL);
    pthread_cond_init(&comm->wake, NULL);
    give(comm, &(Work){.kind = WORK_INIT, .fault = fault_at(rank, 0, true, NULL)});
    if (pthread_create(&comm->thread, NULL, serve, comm) != 0) return ncclSystemError;
    *out = comm;
    return ncclInProgress;
}

/* What every call on a live communicator must find. */
static ncclResult_t check_idle(ncclComm_t comm) {
    if (!comm) return ncclInvalidArgument;
    int state = atomic_load(&comm->state);
    return state == ncclInProgress || comm->finalized ? ncclInvalidUsage : (ncclResult_t)state;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
    ncclResult_t result = check_idle(comm);
    if (result != ncclSuccess) return result;
    comm->finalized = true;
    give(comm, &(Work){.kind = WORK_FINALIZE});
    return ncclInProgress;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
    if (!comm || !comm->finalized || atomic_load(&comm->state) != ncclSuccess) return ncclInvalidUsage;
    release(comm);
    return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
    if (!comm) return ncclInvalidArgument;
    while (is(fault_at(comm->rank, comm->calls, false, NULL), "stuck")) sleep_ms(1000);
    atomic_store(&comm->aborted, 1);
    release(comm);
    return ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *error) {
    if (!comm) return ncclInvalidArgument;
    *error = (ncclResult_t)atomic_load(&comm->state);
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t result) {
    switch (result) {
    case ncclSuccess: return "no error";
    case ncclUnhandledCudaError: return "unhandled cuda error";
    case ncclSystemError: return "unhandled system error";
    case ncclInternalError: return "internal error";
    case ncclInvalidArgument: return "invalid argument";
    case ncclInvalidUsage: return "invalid usage";
    case ncclRemoteError: return "remote process exited or there was a network error";
    case ncclInProgress: return "NCCL operation in progress";
    default: return "unknown result code";
    }
}

const char *ncclGetLastError(ncclComm_t comm) { return comm ? comm->error : ""; }

static ncclResult_t collective(ncclComm_t comm, Work work) {
    ncclResult_t result = check_idle(comm);
    if (result != ncclSuccess) return result;
    work.fault = fault_at(comm->rank, ++comm->calls, false, NULL);
    if (is(work.fault, "refuse")) {
        announce_fault();
        return ncclInternalError;
    }
    if (type_bytes(work.type) == 0) return ncclInvalidArgument;
    atomic_fetch_add(&issued, 1);
    give(comm, &work);
    return ncclInProgress;
}

ncclResult_t ncclAllReduce(const void *in, void *out, size_t count, ncclDataType_t type, ncclRedOp_t op, ncclComm_t comm,
                           cudaStream_t stream) {
    (void)stream;
    if (op != (type == ncclInt32 ? ncclMax : ncclSum)) return ncclInvalidArgument;
    return collective(comm, (Work){.kind = WORK_ALL_REDUCE, .in = in, .out = out, .count = count, .type = type, .op = op});
}

ncclResult_t ncclBroadcast(const void *in, void *out, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
                           cudaStream_t stream) {
    (void)stream;
    return collective(comm, (Work){.kind = WORK_BROADCAST, .in = in, .out = out, .count = count, .type = type, .root = root});
}

ncclResult_t ncclAllGather(const void *in, void *out, size_t count, ncclDataType_t type, ncclComm_t comm, cudaStream_t stream) {
    (void)stream;
    return collective(comm, (Work){.kind = WORK_ALL_GATHER, .in = in, .out = out, .count = count, .type = type});
}
