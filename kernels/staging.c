#include "kernels/staging.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

/* Long enough for full speed of the bus (a millisecond on PCIe 4), short enough to stay in the last level of cache. */
#define PIECE_BYTES ((size_t)16 << 20)
/* Of one thread's turn. Enough threads read at once that neither faults on the mapping nor one core's copying is the limit. */
#define SLICE_BYTES  ((size_t)1 << 20)
#define MOST_THREADS 8

struct Staging {
    Device *device;
    void *buffers[2];
    DeviceEvent *fetched[2]; /* by the device */
    int next;
};

Status staging_create(Device *device, Staging **out) {
    Staging *staging;
    TRY_ALLOC(staging = calloc(1, sizeof *staging));
    staging->device = device;
    Status status = STATUS_OK;
    for (int i = 0; i < 2 && !status; ++i) {
        if (!device_is_host(device)) status = device_allocate_pinned(device, PIECE_BYTES, &staging->buffers[i]);
        if (!status) status = device_event_create(device, &staging->fetched[i]);
    }
    if (status)
        staging_destroy(staging);
    else
        *out = staging;
    return status;
}

void staging_destroy(Staging *staging) {
    if (!staging) return;
    for (int i = 0; i < 2; ++i) {
        if (staging->fetched[i]) status_free(device_event_wait(staging->device, staging->fetched[i]));
        device_release_pinned(staging->device, staging->buffers[i]);
        device_event_destroy(staging->device, staging->fetched[i]);
    }
    free(staging);
}

static void copy_in_parallel(char *destination, const char *source, size_t bytes) {
    int64_t slices = (int64_t)((bytes + SLICE_BYTES - 1) / SLICE_BYTES);
    int threads = omp_get_max_threads() < MOST_THREADS ? omp_get_max_threads() : MOST_THREADS;
#pragma omp parallel for num_threads(threads) schedule(static, 1) if (slices > 1)
    for (int64_t i = 0; i < slices; ++i) {
        size_t begin = (size_t)i * SLICE_BYTES, length = bytes - begin < SLICE_BYTES ? bytes - begin : SLICE_BYTES;
        memcpy(destination + begin, source + begin, length);
    }
}

Status staging_upload(Staging *staging, void *destination, const void *source, size_t bytes) {
    Device *device = staging->device;
    if (device_is_host(device)) return device_upload(device, destination, source, bytes);
    for (size_t done = 0; done < bytes;) {
        size_t piece = bytes - done < PIECE_BYTES ? bytes - done : PIECE_BYTES;
        int which = staging->next;
        TRY(device_event_wait(device, staging->fetched[which]));
        copy_in_parallel(staging->buffers[which], (const char *)source + done, piece);
        TRY(device_upload_beside(device, (char *)destination + done, staging->buffers[which], piece));
        TRY(device_event_mark(device, DEVICE_UPLOADS, staging->fetched[which]));
        staging->next = 1 - which;
        done += piece;
    }
    return STATUS_OK;
}

Status staging_finish(Staging *staging) {
    for (int i = 0; i < 2; ++i) TRY(device_queue_wait(staging->device, DEVICE_WORK, staging->fetched[i]));
    return STATUS_OK;
}
