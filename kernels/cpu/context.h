/* What hangs off Device.context on the CPU: per-thread workspaces and the cache of matmul primitives. */
#ifndef KERNELS_CPU_CONTEXT_H
#define KERNELS_CPU_CONTEXT_H

#include "kernels/cpu/level.h"
#include "kernels/device.h"

typedef struct MatmulCache MatmulCache; /* kernels/cpu/gemm.h */

/* Block buffers of one thread (attention tiles, matmul output tile); pages are used when touched. */
enum { WORKSPACE_BYTES = 4 << 20 };

typedef struct CpuContext {
    int threads;
    char *workspaces;
    MatmulCache *matmul;
    int rows_independent[2]; /* matmul.c, by fp32 and bf16: 1 yes, -1 no, 0 not looked yet */
} CpuContext;

#define cpu_context_open  CPU_NAME(cpu_context_open)
#define cpu_context_close CPU_NAME(cpu_context_close)
Status cpu_context_open(int threads, void **context);
void cpu_context_close(void *context);

static inline CpuContext *cpu_context(const Device *device) { return device->context; }
/* 64-byte aligned, WORKSPACE_BYTES, contents undefined. */
static inline void *cpu_workspace(const Device *device, int thread) {
    return cpu_context(device)->workspaces + (size_t)thread * WORKSPACE_BYTES;
}

#endif
