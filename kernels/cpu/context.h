/* What hangs off Device.context on the CPU: per-thread workspaces and the cache of matmul primitives. */
#ifndef KERNELS_CPU_CONTEXT_H
#define KERNELS_CPU_CONTEXT_H

#include "kernels/cpu/level.h"
#include "kernels/device.h"

typedef struct MatmulCache MatmulCache; /* kernels/cpu/gemm.h */

/* Block buffers of one thread (attention tiles, matmul output tile); pages are used when touched. */
enum { WORKSPACE_BYTES = 4 << 20 };
/* Elements that one thread goes through in less time than several take to come together: a step of generation has many small
 * ops, and on a busy machine each meeting may cost a time slice. Who computes a row never changes its bits. */
enum { SERIAL_ELEMENTS = 16384 };

/* Which kernels of a b^T give a row the same bits whatever the number of rows (matmul.c finds out). */
typedef enum RowKernels {
    ROWS_UNKNOWN, /* not looked yet */
    ROWS_LIBRARY, /* oneDNN's */
    ROWS_CHAINED, /* few_rows.h for few, oneDNN's for more */
    ROWS_OWN,     /* few_rows.h for few, row_product.h for more */
} RowKernels;

typedef struct CpuContext {
    int threads;
    char *workspaces;
    MatmulCache *matmul;
    RowKernels rows[2]; /* of fp32 and bf16 */
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
