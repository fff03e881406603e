/* Faults for adamem_faults, the program as the tests break it (io/fault.h). Three environment variables arm it:
 *
 *   ADAMEM_FAULT=KIND:POINT:RANK:STEP[:ARGUMENT][,...]
 *       KIND   kill, stop, segfault, terminate, interrupt, user
 *                                               the process gets SIGKILL, SIGSTOP, SIGSEGV, SIGTERM, SIGINT, SIGUSR1
 *              sleep                            for ARGUMENT seconds
 *              enospc, eio, erofs, edquot       the system call at POINT fails so
 *              short                            the write at POINT is asked for 7 bytes only
 *              flip                             one bit in the middle of the file at POINT changes
 *              nan                              the first of the values at POINT becomes one
 *       RANK   a number or *
 *       STEP   a number, FIRST-LAST or *; of the step that is computed, or written as a checkpoint; -1 before the first
 *       ARGUMENT of all but sleep: from which pass of the point on, counted in that step or those steps (default 1)
 *   ADAMEM_FAULT_LOG=FILE      gets a line "KIND POINT RANK STEP" for every fault that fires: what a test must look at
 *   ADAMEM_FAULT_SAMPLES=DIRECTORY  gets a file per process with lines "STEP SAMPLE" for every sample it takes */
#define _GNU_SOURCE
#include "io/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MOST_FAULTS 8

typedef struct Fault {
    char kind[16], point[24];
    int rank; /* -1: any */
    long long first, last;
    double argument;
    long long passes;
} Fault;

static struct {
    pthread_once_t once;
    pthread_mutex_t lock;
    Fault faults[MOST_FAULTS];
    int count, rank;
} armed = {.once = PTHREAD_ONCE_INIT, .lock = PTHREAD_MUTEX_INITIALIZER};

/* Of the thread: a checkpoint is written while a later step is computed. */
static _Thread_local int64_t current_step = -1;

static void give_up(const char *text) {
    fprintf(stderr, "ADAMEM_FAULT: cannot understand \"%s\"\n", text);
    abort();
}

static void parse(const char *text, Fault *fault) {
    char rank[16], step[32], argument[32] = "1";
    int fields = sscanf(text, "%15[^:]:%23[^:]:%15[^:]:%31[^:]:%31s", fault->kind, fault->point, rank, step, argument);
    if (fields < 4) give_up(text);
    fault->rank = strcmp(rank, "*") == 0 ? -1 : atoi(rank);
    fault->argument = atof(argument);
    if (strcmp(step, "*") == 0) {
        fault->first = -1;
        fault->last = INT64_MAX;
    } else if (sscanf(step, "%lld-%lld", &fault->first, &fault->last) == 1) {
        fault->last = fault->first;
    }
}

static void read_environment(void) {
    const char *text = getenv("ADAMEM_FAULT");
    char *copy = strdup(text ? text : ""), *rest = copy;
    for (char *part; (part = strsep(&rest, ","));) {
        if (!*part) continue;
        if (armed.count == MOST_FAULTS) give_up(text);
        parse(part, &armed.faults[armed.count++]);
    }
    free(copy);
}

/* Before the fault, which may leave no time. */
static void record(const Fault *fault) {
    const char *path = getenv("ADAMEM_FAULT_LOG");
    char line[96];
    int length = snprintf(line, sizeof line, "%s %s %d %lld\n", fault->kind, fault->point, armed.rank, (long long)current_step);
    int descriptor = path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666) : -1;
    if (descriptor < 0) return;
    if (write(descriptor, line, (size_t)length) != length) abort();
    close(descriptor);
}

/* The fault of one of these kinds (separated by blanks) that fires here; NULL: none. */
static const Fault *fires(const char *kinds, const char *point) {
    pthread_once(&armed.once, read_environment);
    const Fault *found = NULL;
    pthread_mutex_lock(&armed.lock);
    for (int i = 0; i < armed.count && !found; ++i) {
        Fault *fault = &armed.faults[i];
        if (!strstr(kinds, fault->kind) || strcmp(fault->point, point) != 0) continue;
        if (fault->rank >= 0 && fault->rank != armed.rank) continue;
        if (current_step < fault->first || current_step > fault->last) continue;
        bool from_pass = strcmp(fault->kind, "sleep") != 0;
        if (++fault->passes >= (from_pass ? (long long)fault->argument : 1)) found = fault;
    }
    if (found) record(found);
    pthread_mutex_unlock(&armed.lock);
    return found;
}

void fault_set_rank(int rank) { armed.rank = rank; }

void fault_set_step(int64_t step) { current_step = step; }

static void sleep_seconds(double seconds) {
    struct timespec time = {(time_t)seconds, (long)((seconds - floor(seconds)) * 1e9)};
    while (nanosleep(&time, &time) != 0 && errno == EINTR) continue;
}

void fault_point(const char *point) {
    const Fault *fault = fires("kill stop segfault terminate interrupt user sleep", point);
    if (!fault) return;
    static const struct {
        const char *kind;
        int signal_number;
    } signals[] = {{"kill", SIGKILL},      {"stop", SIGSTOP},     {"segfault", SIGSEGV},
                   {"terminate", SIGTERM}, {"interrupt", SIGINT}, {"user", SIGUSR1}};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; ++i)
        if (strcmp(fault->kind, signals[i].kind) == 0) kill(getpid(), signals[i].signal_number);
    if (strcmp(fault->kind, "sleep") == 0) sleep_seconds(fault->argument);
}

int fault_error(const char *point) {
    const Fault *fault = fires("enospc eio erofs edquot", point);
    if (!fault) return 0;
    if (strcmp(fault->kind, "enospc") == 0) return ENOSPC;
    if (strcmp(fault->kind, "erofs") == 0) return EROFS;
    return strcmp(fault->kind, "edquot") == 0 ? EDQUOT : EIO;
}

size_t fault_size(const char *point, size_t size) { return size > 7 && fires("short", point) ? 7 : size; }

void fault_file(const char *point, const char *path) {
    if (!fires("flip", point)) return;
    unsigned char byte;
    int descriptor = open(path, O_RDWR | O_CLOEXEC);
    off_t middle = lseek(descriptor, 0, SEEK_END) / 2;
    if (pread(descriptor, &byte, 1, middle) != 1) abort();
    byte ^= 0x10;
    if (pwrite(descriptor, &byte, 1, middle) != 1) abort();
    close(descriptor);
}

void fault_values(const char *point, float *values, int64_t count) {
    if (count > 0 && fires("nan", point)) values[0] = NAN;
}

void fault_samples(const int64_t *samples, int64_t count) {
    const char *directory = getenv("ADAMEM_FAULT_SAMPLES");
    static FILE *file;
    if (!directory) return;
    if (!file) {
        char path[512];
        struct timespec now; /* so that names sort in the order of starts */
        clock_gettime(CLOCK_REALTIME, &now);
        snprintf(path, sizeof path, "%s/%012lld%09ld-%d", directory, (long long)now.tv_sec, now.tv_nsec, armed.rank);
        file = fopen(path, "we");
        if (!file) abort();
    }
    for (int64_t i = 0; i < count; ++i) fprintf(file, "%lld %lld\n", (long long)current_step, (long long)samples[i]);
    fflush(file);
}
