/* A device: one GPU, or this process's CPU cores, or the planner that only counts memory.
 *
 * Work is issued in order on the device's stream; on the CPU every call has finished when it returns. Copies beside the work
 * go to a second stream, and events say what must wait for what. */
#ifndef KERNELS_DEVICE_H
#define KERNELS_DEVICE_H

#include "io/status.h"
#include "kernels/tensor.h"

#include <stdbool.h>

typedef enum BackendKind {
    BACKEND_CPU,
    BACKEND_CUDA,
    BACKEND_PLAN, /* every op and copy does nothing: a step run on it yields the exact arena peak */
} BackendKind;

typedef struct Ops Ops;
typedef struct DeviceMemory DeviceMemory; /* allocation and copies of a backend; see device.c */

/* Which implementation attention has. Each takes the calls that it can; the others go to the next in this order. */
typedef enum AttentionEngine {
    ATTENTION_AUTO,         /* cuDNN where it is present */
    ATTENTION_CUDNN,        /* the same; its absence is an error */
    ATTENTION_TENSOR_CORES, /* our flash attention: what an open GPU has until it is asked for another */
    ATTENTION_PLAIN,        /* fp32 arithmetic; on a CPU the only one */
} AttentionEngine;

/* The passes of attention that cuDNN may run: their scratch is larger. */
typedef enum CudnnPasses { CUDNN_NO_PASS, CUDNN_FORWARD_PASS, CUDNN_BOTH_PASSES } CudnnPasses;

typedef struct Device {
    BackendKind kind;
    const Ops *ops; /* kernels/ops.h */
    const DeviceMemory *memory;
    int threads;          /* CPU worker threads */
    void *context;        /* of the backend; owned */
    BackendKind target;   /* whose scratch the ops take: kind, or what a planner plans for */
    int64_t memory_bytes; /* that such a GPU has, free or not; 0 on a CPU */
    CudnnPasses cudnn;    /* set by device_set_attention; a planner's is that of what it plans for */
    char name[128];       /* "CPU (AVX-512), 2 threads", "NVIDIA H200" */
} Device;

/* local_rank chooses the GPU. threads 0: OMP_NUM_THREADS or all cores available to this process.
 * STATUS_FAILED where the backend is not built in, has no usable device, or the CPU is too old: says why. */
Status device_open(BackendKind kind, int local_rank, int threads, Device **out);
/* A planner for a device of kind target, BACKEND_CPU or BACKEND_CUDA, that need not be there. memory_bytes: Device's.
 * device_open(BACKEND_PLAN) plans for the CPU. */
Status device_open_planner(BackendKind target, int64_t memory_bytes, Device **out);
void device_close(Device *device);
/* Says in the log when AUTO does without cuDNN, and why. STATUS_INVALID when the backend has no such engine; STATUS_FAILED
 * when CUDNN cannot be loaded or does not know the GPU. To be called before memory is planned. */
Status device_set_attention(Device *device, AttentionEngine engine);
/* True when CUDA is built in and a GPU is present; otherwise *why (static) says in a line why not. */
bool device_cuda_available(const char **why);

/* 64-byte (CPU) or 256-byte (CUDA) aligned. Contents undefined. */
Status device_allocate(Device *device, size_t bytes, void **out);
void device_release(Device *device, void *data);
Status device_upload(Device *device, void *destination, const void *host, size_t bytes); /* host -> device */
Status device_download(Device *device, void *host, const void *source, size_t bytes);    /* device -> host, waits */
Status device_copy(Device *device, void *destination, const void *source, size_t bytes); /* within the device */
Status device_fill_zero(Device *device, void *data, size_t bytes);
Status device_synchronize(Device *device); /* waits for all work; not for uploads beside it (below) */
/* Bytes that could still be allocated: of the GPU, or of this machine without swapping. */
Status device_free_memory(Device *device, int64_t *bytes);
/* Whether host pointers may be used as device pointers (mapped weights are then not copied). */
bool device_is_host(const Device *device);

/* Page-locked host memory, from and to which the device copies without the processor's help; plain memory on a CPU. */
Status device_allocate_pinned(Device *device, size_t bytes, void **out);
void device_release_pinned(Device *device, void *data);

/* What the device does in order: ops and the copies above, or the uploads beside them. */
typedef enum DeviceQueue { DEVICE_WORK, DEVICE_UPLOADS } DeviceQueue;
/* Neither waits: source and destination in pinned memory stay untouched until an event that is marked behind has come. */
Status device_upload_beside(Device *device, void *destination, const void *pinned, size_t bytes); /* on DEVICE_UPLOADS */
Status device_download_later(Device *device, void *pinned, const void *source, size_t bytes);     /* on DEVICE_WORK */
/* A place in a queue. Before it is marked for the first time it has come already. Any thread may use these, an event one
 * thread at a time. */
typedef struct DeviceEvent DeviceEvent;
Status device_event_create(Device *device, DeviceEvent **out);
void device_event_destroy(Device *device, DeviceEvent *event); /* accepts NULL */
Status device_event_mark(Device *device, DeviceQueue queue, DeviceEvent *event);
/* What is issued to the queue from now on waits for the event as it is marked now. */
Status device_queue_wait(Device *device, DeviceQueue queue, DeviceEvent *event);
Status device_event_wait(Device *device, DeviceEvent *event); /* the calling thread waits */

/* For libraries that work on the device beside its ops. They fail on a device without a stream (CPU, planner). */
#define DEVICE_IDENTITY_BYTES 64
Status device_stream(Device *device, void **stream); /* cudaStream_t; makes the device the calling thread's current one */
/* Whether all work issued so far has finished, without waiting; the device's error where it failed. */
Status device_poll(Device *device, bool *idle);
/* Equal for two processes of one machine that use the same device: its PCI address. */
Status device_identity(Device *device, char text[DEVICE_IDENTITY_BYTES]);

#endif
