/* Runs the blocks of a launch one after another and the threads of a block as fibres.
 *
 * A thread runs until a barrier or a warp operation that others have not reached yet. The scheduler then lets the next
 * one run, in the chosen order, pass after pass over the block or over one warp after another, until all have returned or
 * none can go on. */
#include "tests/cuda_on_host/fibre.h"
#include "tests/cuda_on_host/streams.h"

#include <link.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <algorithm>
#include <map>
#include <vector>

#ifdef HOST_ADDRESS_SANITIZER
#include <sanitizer/asan_interface.h>
#endif

static const size_t shared_default = 48 << 10, shared_most = 227 << 10; /* bytes per block, before and after asking */
static const unsigned char poison = 0xff;                               /* NaN in every floating type */

dim3 threadIdx, blockIdx, blockDim, gridDim;
/* Dynamic shared memory: what `extern __shared__ T shared[]` in a kernel names. */
alignas(1024) thread_local unsigned char shared[shared_most];

struct Copy {
    void *to;
    const void *from; /* NULL: zeros */
    size_t bytes;
};

enum ThreadState { READY, AT_BLOCK_BARRIER, AT_WARP_OPERATION, RETURNED };

struct Thread {
    Fibre fibre;
    dim3 index;
    ThreadState state;
    const char *file; /* where it waits */
    int line;
    std::vector<Copy> copies;      /* queued, oldest first */
    std::vector<size_t> group_end; /* of closed groups, as a number of copies */
};

/* Lanes that wait for each other in one warp operation. */
struct Group {
    uint32_t mask, arrived;
    HostWarpOperation operation;
    const char *file;
    int line;
};

struct Warp {
    uint32_t alive;
    void *operands[32];
    std::vector<Group> groups;
};

/* The launch in progress. */
static struct Launch {
    std::vector<Thread> threads; /* grown, never shrunk: the stacks are kept */
    std::vector<Warp> warps;
    int count, running, returned, current;
    int at_barrier, predicates, predicate_result;
    Fibre scheduler;
    std::function<void()> body;
    bool failed;
} launch;

int host_capability = 8;
static int thread_order;
static uint64_t random_state;
static std::map<const void *, size_t> allowed_shared; /* per kernel, by cudaFuncSetAttribute */
static cudaError_t last_error, run_error;
static char last_message[512];

extern "C" void host_set_thread_order(int order) {
    thread_order = order;
    random_state = (uint64_t)order * 0x9E3779B97F4A7C15u;
}

extern "C" void host_set_capability(int major) { host_capability = major; }

static uint32_t random_below(uint32_t n) { /* splitmix64 */
    uint64_t z = random_state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return (uint32_t)(((z ^ (z >> 31)) >> 32) * n >> 32);
}

static void put_in_order(std::vector<unsigned> &turns) {
    for (size_t i = 0; i < turns.size(); ++i) turns[i] = (unsigned)(thread_order == 1 ? turns.size() - 1 - i : i);
    if (thread_order < 2) return;
    for (size_t i = turns.size(); i > 1; --i) std::swap(turns[i - 1], turns[random_below((uint32_t)i)]);
}

/* ---- errors ---- */

static cudaError_t report(cudaError_t error, const char *format, ...) __attribute__((format(printf, 2, 3)));
static cudaError_t report(cudaError_t error, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(last_message, sizeof last_message, format, arguments);
    va_end(arguments);
    return last_error = error;
}

cudaError_t cudaGetLastError() {
    if (cudaError_t lost = host_device_call()) return lost;
    const cudaError_t error = last_error;
    last_error = run_error = cudaSuccess;
    return error;
}

const char *cudaGetErrorString(cudaError_t error) {
    switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorECCUncorrectable: return "uncorrectable ECC error encountered";
    case cudaErrorInvalidConfiguration:
    case cudaErrorLaunchFailure: return last_message;
    default: return "an error that the emulation does not name";
    }
}

static Thread &me() { return launch.threads[(size_t)launch.current]; }

/* Ends the launch from inside a thread. */
[[noreturn]] static void fail_here(const char *what, const char *file, int line, const char *other_file, int other_line) {
    report(cudaErrorLaunchFailure, "%s: thread (%u, %u, %u) of block (%u, %u, %u) at %s:%d, another at %s:%d", what, me().index.x,
           me().index.y, me().index.z, blockIdx.x, blockIdx.y, blockIdx.z, file, line, other_file, other_line);
    launch.failed = true;
    fibre_switch(&me().fibre, &launch.scheduler);
    abort();
}

/* ---- barriers ---- */

/* Nearly always the same literal: a comparison of texts at every warp operation would be felt. */
static bool differ(const char *file, const char *other) { return file != other && strcmp(file, other) != 0; }

static void wait(ThreadState state, const char *file, int line) {
    Thread &thread = me();
    thread.state = state;
    thread.file = file;
    thread.line = line;
    fibre_switch(&thread.fibre, &launch.scheduler);
}

static bool release_block_barrier() {
    if (launch.at_barrier == 0 || launch.at_barrier + launch.returned < launch.count) return false;
    for (int i = 0; i < launch.count; ++i)
        if (launch.threads[(size_t)i].state == AT_BLOCK_BARRIER) launch.threads[(size_t)i].state = READY;
    launch.predicate_result = launch.predicates; /* read by all before any of them can complete the next barrier */
    launch.at_barrier = launch.predicates = 0;
    return true;
}

int host_block_barrier(bool predicate, const char *file, int line) {
    if (launch.at_barrier > 0)
        for (int i = 0; i < launch.count; ++i) {
            const Thread &other = launch.threads[(size_t)i];
            if (other.state != AT_BLOCK_BARRIER) continue;
            if (other.line != line || differ(other.file, file))
                fail_here("threads at different block barriers", file, line, other.file, other.line);
            break;
        }
    ++launch.at_barrier;
    launch.predicates += predicate;
    me().state = AT_BLOCK_BARRIER;
    if (release_block_barrier()) return launch.predicate_result;
    wait(AT_BLOCK_BARRIER, file, line);
    return launch.predicate_result;
}

/* Carries out the group's operation when the last of its living lanes is there. */
static bool release_group(Warp &warp, size_t first_thread, size_t index) {
    const Group group = warp.groups[index];
    if ((group.mask & warp.alive) != group.arrived) return false;
    warp.groups.erase(warp.groups.begin() + (std::ptrdiff_t)index);
    group.operation(warp.operands, group.arrived);
    for (size_t lane = 0; lane < 32; ++lane)
        if (group.arrived >> lane & 1) launch.threads[first_thread + lane].state = READY;
    return true;
}

void host_warp_operation(uint32_t mask, void *operand, HostWarpOperation operation, const char *file, int line) {
    const size_t first = (size_t)launch.current / 32 * 32, lane = (size_t)launch.current % 32;
    Warp &warp = launch.warps[first / 32];
    if (!(mask >> lane & 1)) fail_here("a warp operation whose mask lacks the calling lane", file, line, file, line);
    size_t index = 0;
    while (index < warp.groups.size() && warp.groups[index].mask != mask) ++index;
    if (index == warp.groups.size()) warp.groups.push_back({mask, 0, operation, file, line});
    Group &group = warp.groups[index];
    if (group.operation != operation || group.line != line || differ(group.file, file))
        fail_here("lanes of a warp in different operations", file, line, group.file, group.line);
    group.arrived |= (uint32_t)1 << lane;
    warp.operands[lane] = operand;
    if (!release_group(warp, first, index)) wait(AT_WARP_OPERATION, file, line);
}

int host_lane() { return launch.current % 32; }

void host_warp_nothing(void *const *, uint32_t) {}

void host_warp_shuffle(void *const operands[32], uint32_t lanes) {
    for (int lane = 0; lane < 32; ++lane) {
        if (!(lanes >> lane & 1)) continue;
        HostShuffle *shuffle = (HostShuffle *)operands[lane];
        const bool present = shuffle->source >= 0 && shuffle->source < 32 && (lanes >> shuffle->source & 1);
        if (present)
            shuffle->result = ((const HostShuffle *)operands[shuffle->source])->value;
        else
            memset(&shuffle->result, poison, sizeof shuffle->result); /* undefined in CUDA */
    }
}

void host_warp_ballot(void *const operands[32], uint32_t lanes) {
    uint32_t result = 0;
    for (int lane = 0; lane < 32; ++lane)
        if (lanes >> lane & 1) result |= (uint32_t)((const HostBallot *)operands[lane])->predicate << lane;
    for (int lane = 0; lane < 32; ++lane)
        if (lanes >> lane & 1) ((HostBallot *)operands[lane])->result = result;
}

struct Gather {
    char *all;
    const void *mine;
    size_t bytes;
};

static void gather(void *const operands[32], uint32_t lanes) {
    for (int lane = 0; lane < 32; ++lane) {
        if (!(lanes >> lane & 1)) continue;
        const Gather *to = (const Gather *)operands[lane];
        for (int other = 0; other < 32; ++other) {
            const Gather *from = (const Gather *)operands[other];
            if (lanes >> other & 1 && from->bytes == to->bytes)
                memcpy(to->all + (size_t)other * to->bytes, from->mine, to->bytes);
            else
                memset(to->all + (size_t)other * to->bytes, poison, to->bytes);
        }
    }
}

void host_warp_gather(void *all, const void *mine, size_t bytes) {
    Gather operand = {(char *)all, mine, bytes};
    host_warp_operation(0xffffffffu, &operand, gather, "a tensor-core operation", 0);
}

/* ---- asynchronous copies ---- */

static void carry_out(const Copy &copy) {
    if (copy.from)
        memcpy(copy.to, copy.from, copy.bytes);
    else
        memset(copy.to, 0, copy.bytes);
}

void host_copy_async(void *to, const void *from, size_t bytes) {
    const Copy copy = {to, from, bytes};
    if ((uintptr_t)to % bytes || (uintptr_t)from % bytes) fail_here("a misaligned asynchronous copy", "cp.async", 0, "-", 0);
    if (thread_order == 1 || (thread_order > 1 && random_below(2)))
        carry_out(copy);
    else
        me().copies.push_back(copy);
}

void host_copy_async_commit() { me().group_end.push_back(me().copies.size()); }

void host_copy_async_wait(int pending) {
    Thread &thread = me();
    const size_t closed = thread.group_end.size();
    if (closed <= (size_t)pending) return;
    const size_t groups = closed - (size_t)pending, copies = thread.group_end[groups - 1];
    for (size_t i = 0; i < copies; ++i) carry_out(thread.copies[i]);
    thread.copies.erase(thread.copies.begin(), thread.copies.begin() + (std::ptrdiff_t)copies);
    thread.group_end.erase(thread.group_end.begin(), thread.group_end.begin() + (std::ptrdiff_t)groups);
    for (size_t &end : thread.group_end) end -= copies;
}

/* ---- shared memory ---- */

struct Storage {
    unsigned char *data;
    size_t bytes;
};

/* The thread-local storage of the library that this function is in. */
static int find_storage(struct dl_phdr_info *info, size_t, void *result) {
    bool here = false;
    for (int i = 0; i < info->dlpi_phnum; ++i) {
        const uintptr_t start = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
        if (info->dlpi_phdr[i].p_type == PT_LOAD && (uintptr_t)find_storage - start < info->dlpi_phdr[i].p_memsz) here = true;
    }
    for (int i = 0; here && i < info->dlpi_phnum; ++i)
        if (info->dlpi_phdr[i].p_type == PT_TLS)
            *(Storage *)result = {(unsigned char *)info->dlpi_tls_data, info->dlpi_phdr[i].p_memsz};
    return here;
}

/* Poisons the static shared variables and the dynamic bytes of a block. */
static void poison_shared(const Storage &storage, size_t bytes) {
    memset(storage.data, poison, (size_t)(shared - storage.data));
    memset(shared, poison, bytes);
    const unsigned char *end = shared + shared_most;
    memset(shared + shared_most, poison, (size_t)(storage.data + storage.bytes - end));
}

/* Between begin and end of a launch nothing may touch dynamic shared memory beyond what was asked for. */
static void guard_shared(size_t bytes) {
    memset(shared + bytes, poison, shared_most - bytes);
#ifdef HOST_ADDRESS_SANITIZER
    __asan_poison_memory_region(shared + bytes, shared_most - bytes);
#endif
}

static bool shared_guard_held(size_t bytes) {
#ifdef HOST_ADDRESS_SANITIZER
    __asan_unpoison_memory_region(shared, shared_most);
#endif
    const size_t rest = shared_most - bytes; /* all of them are what the first is: one comparison, not one per byte */
    return rest == 0 || (shared[bytes] == poison && memcmp(shared + bytes, shared + bytes + 1, rest - 1) == 0);
}

/* ---- the scheduler ---- */

static void thread_returned() {
    Thread &thread = me();
    for (const Copy &copy : thread.copies) carry_out(copy);
    thread.state = RETURNED;
    ++launch.returned;
    const size_t first = (size_t)launch.current / 32 * 32;
    Warp &warp = launch.warps[first / 32];
    warp.alive &= ~((uint32_t)1 << launch.current % 32);
    for (size_t i = 0; i < warp.groups.size();)
        if (!release_group(warp, first, i)) ++i;
    release_block_barrier();
}

static void thread_main() {
    launch.body();
    thread_returned();
    fibre_switch(&me().fibre, &launch.scheduler);
    abort();
}

static void prepare_threads(dim3 block) {
    launch.count = (int)(block.x * block.y * block.z);
    launch.returned = launch.at_barrier = launch.predicates = 0;
    if (launch.threads.size() < (size_t)launch.count) launch.threads.resize((size_t)launch.count);
    launch.warps.assign(((size_t)launch.count + 31) / 32, Warp());
    for (int i = 0; i < launch.count; ++i) {
        Thread &thread = launch.threads[(size_t)i];
        const unsigned id = (unsigned)i;
        thread.index = dim3(id % block.x, id / block.x % block.y, id / block.x / block.y);
        thread.state = READY;
        thread.copies.clear();
        thread.group_end.clear();
        launch.warps[(size_t)i / 32].alive |= (uint32_t)1 << i % 32;
        fibre_prepare(&thread.fibre, thread_main);
    }
}

static void report_stuck() {
    for (int i = 0; i < launch.count; ++i) {
        const Thread &thread = launch.threads[(size_t)i];
        if (thread.state == RETURNED) continue;
        report(cudaErrorLaunchFailure, "deadlock: thread (%u, %u, %u) of block (%u, %u, %u) waits forever in a %s at %s:%d",
               thread.index.x, thread.index.y, thread.index.z, blockIdx.x, blockIdx.y, blockIdx.z,
               thread.state == AT_BLOCK_BARRIER ? "block barrier" : "warp operation", thread.file, thread.line);
        launch.failed = true;
        return;
    }
}

/* Lets the threads first .. first + turns.size() - 1 run once each, as far as they get; whether any could. */
static bool run_threads(size_t first, std::vector<unsigned> &turns) {
    bool progress = false;
    put_in_order(turns);
    for (size_t i = 0; i < turns.size() && !launch.failed; ++i) {
        Thread &thread = launch.threads[first + turns[i]];
        if (thread.state != READY) continue;
        launch.current = (int)(first + turns[i]);
        threadIdx = thread.index;
        fibre_switch(&launch.scheduler, &thread.fibre);
        progress = true;
    }
    return progress;
}

/* Lets one warp after another run until it can go no further alone: far ahead of the rest where a block barrier is missing. */
static bool run_warps() {
    bool progress = false;
    std::vector<unsigned> warps(launch.warps.size()), lanes;
    put_in_order(warps);
    for (unsigned warp : warps) {
        const size_t first = (size_t)warp * 32;
        lanes.resize(std::min((size_t)32, (size_t)launch.count - first));
        while (!launch.failed && run_threads(first, lanes)) progress = true;
    }
    return progress;
}

static void run_block(dim3 block) {
    prepare_threads(block);
    std::vector<unsigned> turns((size_t)launch.count);
    const bool by_warps = thread_order == 1 || (thread_order > 1 && random_below(2));
    while (launch.returned < launch.count && !launch.failed)
        if (!(by_warps ? run_warps() : run_threads(0, turns))) report_stuck();
}

static cudaError_t check_launch(const void *kernel, dim3 grid, dim3 block, size_t shared_bytes, const Storage &storage) {
    const uint64_t threads = (uint64_t)block.x * block.y * block.z;
    if (threads == 0 || threads > 1024 || block.x > 1024 || block.y > 1024 || block.z > 64)
        return report(cudaErrorInvalidConfiguration, "a block of %u x %u x %u threads", block.x, block.y, block.z);
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > INT_MAX || grid.y > 65535 || grid.z > 65535)
        return report(cudaErrorInvalidConfiguration, "a grid of %u x %u x %u blocks", grid.x, grid.y, grid.z);
    const auto allowed = allowed_shared.find(kernel);
    if (shared_bytes > (allowed == allowed_shared.end() ? shared_default : allowed->second) || shared_bytes > host_shared_limit())
        return report(cudaErrorInvalidConfiguration, "%zu bytes of shared memory, more than the kernel is allowed", shared_bytes);
    if (!storage.data) return report(cudaErrorLaunchFailure, "the emulation does not find its shared variables");
    return cudaSuccess;
}

cudaError_t host_allow_shared_memory(const void *kernel, int bytes) {
    if (bytes < 0 || (size_t)bytes > host_shared_limit()) return cudaErrorInvalidValue;
    allowed_shared[kernel] = (size_t)bytes;
    return cudaSuccess;
}

static void run_launch(dim3 grid, dim3 block, size_t shared_bytes, std::function<void()> body) {
    Storage storage = {};
    HostMemoryAccess access;
    dl_iterate_phdr(find_storage, &storage); /* of the thread that happens to run it */
    launch.body = std::move(body);
    launch.failed = false;
    blockDim = block;
    gridDim = grid;
    guard_shared(shared_bytes);
    std::vector<unsigned> blocks((size_t)grid.x * grid.y * grid.z);
    put_in_order(blocks);
    for (size_t i = 0; i < blocks.size() && !launch.failed; ++i) {
        blockIdx = dim3(blocks[i] % grid.x, blocks[i] / grid.x % grid.y, blocks[i] / grid.x / grid.y);
        poison_shared(storage, shared_bytes);
        run_block(block);
    }
    if (!shared_guard_held(shared_bytes) && !launch.failed) {
        report(cudaErrorLaunchFailure, "a write beyond the %zu bytes of dynamic shared memory", shared_bytes);
        launch.failed = true;
    }
    if (launch.failed) run_error = last_error;
}

cudaError_t host_launch_error() {
    const cudaError_t error = run_error;
    run_error = cudaSuccess;
    return error;
}

cudaError_t host_launch(const void *kernel, dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                        std::function<void()> body) {
    std::lock_guard<std::recursive_mutex> lock(host_runtime_mutex());
    if (cudaError_t lost = host_device_call()) return last_error = lost;
    Storage storage = {};
    dl_iterate_phdr(find_storage, &storage);
    if (check_launch(kernel, grid, block, shared_bytes, storage) != cudaSuccess) return last_error;
    host_stream_issue(stream, [grid, block, shared_bytes, body] { run_launch(grid, block, shared_bytes, body); });
    return last_error;
}
