/* Device: forwards to the memory table of its backend, and holds the two backends that use host memory.
 *
 * CPU memory is mapped without reserve: an arena may be as large as the address space, and only what a step touches
 * becomes resident. The planner's memory is mapped without access, so that a stray read or write faults. */
#include "kernels/device.h"

#include "kernels/device_memory.h"
#include "kernels/ops.h"
#include "kernels/ops_cpu.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/mman.h>

/* In front of every mapping; holds the mapping's size, because a page is the finest unit of protection. */
enum { HEADER_BYTES = 4096 };

static Status map_memory(size_t bytes, int protection, void **out) {
    if (bytes > SIZE_MAX / 2) FAIL("cannot map %zu bytes", bytes);
    size_t total = bytes + HEADER_BYTES;
    char *base = mmap(NULL, total, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) FAIL("out of memory: cannot map %.2f GB", (double)total / 1e9);
    if (protection == PROT_NONE && mprotect(base, HEADER_BYTES, PROT_READ | PROT_WRITE) != 0) {
        munmap(base, total);
        FAIL("cannot protect mapped memory");
    }
    /* Activations are streamed through once per op: huge pages save a tenth of the time of memory-bound ops. Where the
     * kernel offers none the advice fails and small pages serve. */
    if (protection != PROT_NONE && total >= (size_t)4 << 20) (void)madvise(base, total, MADV_HUGEPAGE);
    memcpy(base, &total, sizeof total);
    *out = base + HEADER_BYTES;
    return STATUS_OK;
}

static void host_release(Device *device, void *data) {
    (void)device;
    char *base = (char *)data - HEADER_BYTES;
    size_t total;
    memcpy(&total, base, sizeof total);
    munmap(base, total);
}

static Status cpu_allocate(Device *device, size_t bytes, void **out) {
    (void)device;
    return map_memory(bytes, PROT_READ | PROT_WRITE, out);
}

static Status cpu_open(Device *device, int local_rank) {
    (void)local_rank;
    const char *why;
    const CpuBackend *backend = cpu_backend_select(&why);
    if (!backend) FAIL("the CPU backend cannot run: %s", why);
    if (device->threads <= 0) device->threads = omp_get_max_threads(); /* OMP_NUM_THREADS, else the affinity mask */
    TRY(backend->open(device->threads, &device->context));
    device->ops = backend->ops;
    snprintf(device->name, sizeof device->name, "CPU (%s), %d thread%s", backend->name, device->threads,
             device->threads == 1 ? "" : "s");
    return STATUS_OK;
}

static void cpu_close(Device *device) {
    const char *why;
    cpu_backend_select(&why)->close(device->context);
}

static Status cpu_copy(Device *device, void *destination, const void *source, size_t bytes) {
    (void)device;
    memmove(destination, source, bytes);
    return STATUS_OK;
}

static Status cpu_zero(Device *device, void *data, size_t bytes) {
    (void)device;
    memset(data, 0, bytes);
    return STATUS_OK;
}

static Status host_synchronize(Device *device) {
    (void)device;
    return STATUS_OK;
}

/* MemAvailable: free pages and those the kernel would give up for us. */
static Status cpu_free_memory(Device *device, int64_t *bytes) {
    (void)device;
    long kilobytes = 0;
    char line[128];
    FILE *file = fopen("/proc/meminfo", "r");
    while (file && kilobytes == 0 && fgets(line, sizeof line, file))
        if (sscanf(line, "MemAvailable: %ld kB", &kilobytes) != 1) kilobytes = 0;
    if (file) fclose(file);
    *bytes = kilobytes > 0 ? (int64_t)kilobytes * 1024 : (int64_t)sysconf(_SC_AVPHYS_PAGES) * sysconf(_SC_PAGE_SIZE);
    return STATUS_OK;
}

static const DeviceMemory cpu_memory = {
    .open = cpu_open,
    .close = cpu_close,
    .allocate = cpu_allocate,
    .release = host_release,
    .upload = cpu_copy,
    .download = cpu_copy,
    .copy = cpu_copy,
    .zero = cpu_zero,
    .synchronize = host_synchronize,
    .free_memory = cpu_free_memory,
    .is_host = true,
};

static Status plan_open(Device *device, int local_rank) {
    (void)local_rank;
    device->ops = ops_plan();
    if (device->threads <= 0) device->threads = 1;
    snprintf(device->name, sizeof device->name, "planner");
    return STATUS_OK;
}

static void plan_close(Device *device) { (void)device; }

static Status plan_allocate(Device *device, size_t bytes, void **out) {
    (void)device;
    return map_memory(bytes, PROT_NONE, out);
}

static Status plan_copy(Device *device, void *destination, const void *source, size_t bytes) {
    (void)device, (void)destination, (void)source, (void)bytes;
    return STATUS_OK;
}

/* What a plan downloads (losses, norms, flags) reads as zero. */
static Status plan_download(Device *device, void *host, const void *source, size_t bytes) {
    (void)device, (void)source;
    memset(host, 0, bytes);
    return STATUS_OK;
}

static Status plan_zero(Device *device, void *data, size_t bytes) {
    (void)device, (void)data, (void)bytes;
    return STATUS_OK;
}

static Status plan_free_memory(Device *device, int64_t *bytes) {
    (void)device;
    *bytes = INT64_MAX;
    return STATUS_OK;
}

static const DeviceMemory plan_memory = {
    .open = plan_open,
    .close = plan_close,
    .allocate = plan_allocate,
    .release = host_release,
    .upload = plan_copy,
    .download = plan_download,
    .copy = plan_copy,
    .zero = plan_zero,
    .synchronize = host_synchronize,
    .free_memory = plan_free_memory,
    .is_host = false,
};

bool device_cuda_available(const char **why) {
#ifdef ADAMEM_HAVE_CUDA
    return device_memory_cuda_available(why);
#else
    *why = "this program was built without CUDA";
    return false;
#endif
}

static Status memory_of(BackendKind kind, const DeviceMemory **out) {
    switch (kind) {
    case BACKEND_CPU: *out = &cpu_memory; return STATUS_OK;
    case BACKEND_PLAN: *out = &plan_memory; return STATUS_OK;
    case BACKEND_CUDA: break;
    }
    const char *why;
    if (!device_cuda_available(&why)) FAIL("the CUDA backend cannot run: %s", why);
#ifdef ADAMEM_HAVE_CUDA
    *out = device_memory_cuda();
#endif
    return STATUS_OK;
}

Status device_open(BackendKind kind, int local_rank, int threads, Device **out) {
    const DeviceMemory *memory = NULL;
    TRY(memory_of(kind, &memory));
    Device *device = calloc(1, sizeof *device);
    TRY_ALLOC(device);
    device->kind = kind;
    device->target = kind == BACKEND_PLAN ? BACKEND_CPU : kind;
    device->memory = memory;
    device->threads = threads;
    Status status = memory->open(device, local_rank);
    if (status) {
        free(device);
        return status_trace(status, __FILE__, __LINE__);
    }
    *out = device;
    return STATUS_OK;
}

Status device_open_planner(BackendKind target, int64_t memory_bytes, Device **out) {
    TRY(device_open(BACKEND_PLAN, 0, 0, out));
    (*out)->target = target;
    (*out)->memory_bytes = memory_bytes;
    return STATUS_OK;
}

Status device_set_attention(Device *device, AttentionEngine engine) {
    if (device->memory->set_attention) return device->memory->set_attention(device, engine);
    if (engine == ATTENTION_CUDNN || engine == ATTENTION_TENSOR_CORES)
        INVALID("needs a GPU: a CPU takes auto or plain, which are the same there");
    return STATUS_OK;
}

void device_close(Device *device) {
    if (!device) return;
    device->memory->close(device);
    free(device);
}

Status device_allocate(Device *device, size_t bytes, void **out) {
    return device->memory->allocate(device, bytes ? bytes : 1, out);
}

void device_release(Device *device, void *data) {
    if (data) device->memory->release(device, data);
}

Status device_upload(Device *device, void *destination, const void *host, size_t bytes) {
    return bytes ? device->memory->upload(device, destination, host, bytes) : STATUS_OK;
}

Status device_download(Device *device, void *host, const void *source, size_t bytes) {
    return bytes ? device->memory->download(device, host, source, bytes) : STATUS_OK;
}

Status device_copy(Device *device, void *destination, const void *source, size_t bytes) {
    return bytes ? device->memory->copy(device, destination, source, bytes) : STATUS_OK;
}

Status device_fill_zero(Device *device, void *data, size_t bytes) {
    return bytes ? device->memory->zero(device, data, bytes) : STATUS_OK;
}

Status device_synchronize(Device *device) { return device->memory->synchronize(device); }

bool device_is_host(const Device *device) { return device->memory->is_host; }

static Status no_stream(const Device *device) { FAIL("%s has no stream of work", device->name); }

Status device_stream(Device *device, void **stream) {
    return device->memory->stream ? device->memory->stream(device, stream) : no_stream(device);
}

Status device_poll(Device *device, bool *idle) {
    return device->memory->poll ? device->memory->poll(device, idle) : no_stream(device);
}

Status device_free_memory(Device *device, int64_t *bytes) { return device->memory->free_memory(device, bytes); }

Status device_identity(Device *device, char text[DEVICE_IDENTITY_BYTES]) {
    return device->memory->identity ? device->memory->identity(device, text) : no_stream(device);
}

/* Where nothing is asynchronous an event needs no memory; this address says that it was created. */
static char event_that_has_come;

Status device_allocate_pinned(Device *device, size_t bytes, void **out) {
    bytes = bytes ? bytes : 1;
    if (device->memory->allocate_pinned) return device->memory->allocate_pinned(device, bytes, out);
    TRY_ALLOC(*out = malloc(bytes));
    return STATUS_OK;
}

void device_release_pinned(Device *device, void *data) {
    if (!data) return;
    if (device->memory->release_pinned)
        device->memory->release_pinned(device, data);
    else
        free(data);
}

Status device_upload_beside(Device *device, void *destination, const void *pinned, size_t bytes) {
    if (!device->memory->upload_beside) return device_upload(device, destination, pinned, bytes);
    return bytes ? device->memory->upload_beside(device, destination, pinned, bytes) : STATUS_OK;
}

Status device_download_later(Device *device, void *pinned, const void *source, size_t bytes) {
    if (!device->memory->download_later) return device_download(device, pinned, source, bytes);
    return bytes ? device->memory->download_later(device, pinned, source, bytes) : STATUS_OK;
}

Status device_event_create(Device *device, DeviceEvent **out) {
    if (device->memory->event_create) return device->memory->event_create(device, out);
    *out = (DeviceEvent *)&event_that_has_come;
    return STATUS_OK;
}

void device_event_destroy(Device *device, DeviceEvent *event) {
    if (event && device->memory->event_destroy) device->memory->event_destroy(device, event);
}

Status device_event_mark(Device *device, DeviceQueue queue, DeviceEvent *event) {
    return device->memory->event_mark ? device->memory->event_mark(device, queue, event) : STATUS_OK;
}

Status device_queue_wait(Device *device, DeviceQueue queue, DeviceEvent *event) {
    return device->memory->queue_wait ? device->memory->queue_wait(device, queue, event) : STATUS_OK;
}

Status device_event_wait(Device *device, DeviceEvent *event) {
    return device->memory->event_wait ? device->memory->event_wait(device, event) : STATUS_OK;
}
