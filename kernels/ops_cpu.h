/* The CPU backend as device.c sees it: one table per instruction set level, of which one is chosen at run time. */
#ifndef KERNELS_OPS_CPU_H
#define KERNELS_OPS_CPU_H

#include "kernels/ops.h"

typedef struct CpuBackend {
    const char *name; /* "AVX2", "AVX-512" */
    const Ops *ops;
    /* Makes Device.context: per-thread workspaces and the cache of matmul primitives. */
    Status (*open)(int threads, void **context);
    void (*close)(void *context);
} CpuBackend;

/* Backend number `index` of those that run on this machine, best first; NULL past the last. Their contexts are alike, so
 * that a test may put the ops of a lower level on an open device. */
const CpuBackend *cpu_backend_supported(int index);
/* The best of them; NULL and *why (static) when the CPU is too old. */
const CpuBackend *cpu_backend_select(const char **why);

#endif
