/* What a backend provides beneath device.h: how to open the device, and how to obtain, fill and copy its memory.
 *
 * device.c forwards every device_... call here, so that nothing above it asks which backend runs. The CPU and the planner
 * live in device.c; kernels/cuda/ provides device_memory_cuda(). */
#ifndef KERNELS_DEVICE_MEMORY_H
#define KERNELS_DEVICE_MEMORY_H

#include "kernels/device.h"

struct DeviceMemory {
    /* Fills device->ops, context, threads and name. device->threads holds the caller's wish (0 = all). */
    Status (*open)(Device *device, int local_rank);
    void (*close)(Device *device);                                /* frees the context; not called when open failed */
    Status (*allocate)(Device *device, size_t bytes, void **out); /* bytes > 0 */
    void (*release)(Device *device, void *data);                  /* data != NULL */
    Status (*upload)(Device *device, void *destination, const void *host, size_t bytes);
    Status (*download)(Device *device, void *host, const void *source, size_t bytes);
    Status (*copy)(Device *device, void *destination, const void *source, size_t bytes);
    Status (*zero)(Device *device, void *data, size_t bytes);
    Status (*synchronize)(Device *device);
    Status (*free_memory)(Device *device, int64_t *bytes);
    bool is_host; /* host pointers are device pointers */
    /* NULL all together where nothing is asynchronous: device.c then copies at once, and events have always come. */
    Status (*allocate_pinned)(Device *device, size_t bytes, void **out); /* bytes > 0 */
    void (*release_pinned)(Device *device, void *data);                  /* data != NULL */
    Status (*upload_beside)(Device *device, void *destination, const void *pinned, size_t bytes);
    Status (*download_later)(Device *device, void *pinned, const void *source, size_t bytes);
    Status (*event_create)(Device *device, DeviceEvent **out);
    void (*event_destroy)(Device *device, DeviceEvent *event); /* event != NULL */
    Status (*event_mark)(Device *device, DeviceQueue queue, DeviceEvent *event);
    Status (*queue_wait)(Device *device, DeviceQueue queue, DeviceEvent *event);
    Status (*event_wait)(Device *device, DeviceEvent *event);
    Status (*set_attention)(Device *device, AttentionEngine engine); /* NULL: there is one engine only */
    /* NULL where the device has no stream. */
    Status (*stream)(Device *device, void **stream);
    Status (*poll)(Device *device, bool *idle);
    Status (*identity)(Device *device, char text[DEVICE_IDENTITY_BYTES]);
};

#ifdef ADAMEM_HAVE_CUDA
const DeviceMemory *device_memory_cuda(void);
/* True when a usable GPU is present; otherwise *why (static) says in a line why not. */
bool device_memory_cuda_available(const char **why);
#endif

#endif
