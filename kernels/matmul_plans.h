/* Which algorithm computes each matrix product, for backends that have a choice.
 *
 * Algorithms add in different orders, so all ranks must use the same one, and a run that is continued must use it again:
 * rank 0 chooses before training, and the others and later runs read its table. Without a table a device chooses for each
 * bucket when it first meets it, by the library's own advice. */
#ifndef KERNELS_MATMUL_PLANS_H
#define KERNELS_MATMUL_PLANS_H

#include "io/buffer.h"
#include "kernels/arena.h"
#include "kernels/matmul_shapes.h"

/* What may be spent on measuring the library's first suggestions against each other. */
typedef struct MatmulTiming {
    Arena *arena;       /* idle; lends memory for operands */
    double seconds;     /* in all; 0: nothing is measured, the first suggestion is taken */
    double least_flops; /* of a product that is worth it */
} MatmulTiming;

typedef struct MatmulCounts {
    int64_t chosen, measured; /* plans made; of these by measuring */
} MatmulCounts;

enum { MATMUL_LIBRARY_BYTES = 128 };

/* Of a device; NULL where the backend has no choice. All are called by the thread that issues the device's work. */
typedef struct MatmulPlanning {
    /* GPU and library, in words: a table is good where this is the same, and nowhere else. */
    void (*library)(const Device *, char text[MATMUL_LIBRARY_BYTES]);
    /* Makes a plan for every bucket up to each family's largest that has none yet. */
    Status (*choose)(Device *, const MatmulFamilies *families, MatmulTiming timing, MatmulCounts *counts);
    /* Appends the table: bytes for read_table on a device with the same library. */
    Status (*write_table)(Device *, Text *out);
    /* Takes the plans of a table in the place of what the device has. STATUS_INVALID for bytes that are none; then the device
     * is as before. */
    Status (*read_table)(Device *, const char *bytes, size_t length);
    /* on: the next product that has no plan is told in the log, since all of a training step should have one. */
    void (*watch)(Device *, bool on);
} MatmulPlanning;

const MatmulPlanning *matmul_planning(const Device *device);
#ifdef ADAMEM_HAVE_CUDA
const MatmulPlanning *matmul_planning_cuda(void);
#endif

#endif
