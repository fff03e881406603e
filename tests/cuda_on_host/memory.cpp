/* Device memory and page-locked memory.
 *
 * Environment variables: CUDA_ON_HOST_MEMORY, size of the device in MiB (default 80 GiB); CUDA_ON_HOST_GUARD=1, device memory
 * faults when the program itself reads or writes it; CUDA_ON_HOST_REPORT=1, at the end a line on standard error with the number
 * of allocations and the largest sum of them. */
#include "tests/cuda_on_host/streams.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include <map>

static const size_t poisoned_end = (size_t)2 << 20;

static struct Memory {
    std::map<const char *, size_t> device, pinned; /* bytes by address */
    size_t used, peak;
    long long allocations;
    int access; /* how many HostMemoryAccess live */
} memory;

typedef std::lock_guard<std::recursive_mutex> Lock;

static bool flag(const char *name) {
    const char *text = getenv(name);
    return text && strcmp(text, "1") == 0;
}

static bool guarded() {
    static const bool on = flag("CUDA_ON_HOST_GUARD");
    return on;
}

static __attribute__((destructor)) void tell() {
    if (!flag("CUDA_ON_HOST_REPORT")) return;
    fprintf(stderr, "cuda_on_host: %lld allocations, at most %zu bytes\n", memory.allocations, memory.peak);
}

size_t host_memory_bytes() {
    const char *text = getenv("CUDA_ON_HOST_MEMORY");
    return text ? (size_t)atoll(text) << 20 : (size_t)80 << 30;
}

static size_t whole_pages(size_t bytes) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (bytes + page - 1) / page * page;
}

static void protect(int rights) {
    for (const auto &block : memory.device) mprotect((void *)block.first, whole_pages(block.second), rights);
}

HostMemoryAccess::HostMemoryAccess() {
    if (guarded() && memory.access++ == 0) protect(PROT_READ | PROT_WRITE);
}

HostMemoryAccess::~HostMemoryAccess() {
    if (guarded() && --memory.access == 0) protect(PROT_NONE);
}

/* Whole pages that cost nothing until they are touched: also what is larger than the host's memory. */
static bool is_mapped(size_t bytes) { return guarded() || bytes >= (size_t)1 << 30; }

static void *map_pages(size_t bytes) {
    void *block = mmap(NULL, whole_pages(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return block == MAP_FAILED ? NULL : block;
}

static void *allocate(size_t bytes) {
    void *block = NULL;
    if (is_mapped(bytes)) return map_pages(bytes);
    return posix_memalign(&block, 256, bytes) == 0 ? block : NULL;
}

static void count(size_t bytes) {
    ++memory.allocations;
    memory.used += bytes;
    if (memory.used > memory.peak) memory.peak = memory.used;
}

/* NaN; only at the ends of an arena, where blocks are taken from, so that its middle costs no pages. */
static void poison(char *block, size_t bytes) {
    const size_t end = bytes < poisoned_end ? bytes : poisoned_end;
    memset(block, 0xff, end);
    memset(block + (bytes - end), 0xff, end);
}

cudaError_t cudaMalloc(void **out, size_t bytes) {
    Lock lock(host_runtime_mutex());
    if (cudaError_t lost = host_device_call()) return lost;
    if (memory.used > host_memory_bytes() || bytes > host_memory_bytes() - memory.used) return cudaErrorMemoryAllocation;
    char *block = (char *)allocate(bytes);
    if (!block) return cudaErrorMemoryAllocation;
    poison(block, bytes);
    if (guarded() && memory.access == 0) mprotect(block, whole_pages(bytes), PROT_NONE);
    memory.device[block] = bytes;
    count(bytes);
    *out = block;
    return cudaSuccess;
}

/* Waits for the device first, as CUDA does. */
cudaError_t cudaFree(void *block) {
    Lock lock(host_runtime_mutex());
    host_streams_finish();
    const auto found = memory.device.find((const char *)block);
    if (found == memory.device.end()) return block ? cudaErrorInvalidValue : cudaSuccess;
    memory.used -= found->second;
    if (is_mapped(found->second))
        munmap(block, whole_pages(found->second));
    else
        free(block);
    memory.device.erase(found);
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *available, size_t *total) {
    Lock lock(host_runtime_mutex());
    if (cudaError_t lost = host_device_call()) return lost;
    *total = host_memory_bytes();
    *available = *total > memory.used ? *total - memory.used : 0;
    return cudaSuccess;
}

cudaError_t cudaHostAlloc(void **out, size_t bytes, unsigned) {
    Lock lock(host_runtime_mutex());
    if (cudaError_t lost = host_device_call()) return lost;
    if (posix_memalign(out, 4096, bytes) != 0) return cudaErrorMemoryAllocation;
    memset(*out, 0xff, bytes);
    memory.pinned[(const char *)*out] = bytes;
    ++memory.allocations;
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void *block) {
    Lock lock(host_runtime_mutex());
    host_streams_finish();
    if (block && memory.pinned.erase((const char *)block) == 0) return cudaErrorInvalidValue;
    free(block);
    return cudaSuccess;
}

bool host_memory_is_pinned(const void *address) {
    auto after = memory.pinned.upper_bound((const char *)address);
    if (after == memory.pinned.begin()) return false;
    --after;
    return (const char *)address < after->first + after->second;
}
