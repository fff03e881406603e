/* The table of op tests: one body per op, run on every shape and storage type. */
#ifndef TESTS_OPS_OP_CASES_H
#define TESTS_OPS_OP_CASES_H

#include "tests/ops/harness.h"

typedef void (*CaseBody)(Run *run, const Shape *shape, DType act);

typedef struct OpCase {
    const char *name;
    CaseBody body;
    bool typed; /* run for F32 and BF16; else for F32 only */
} OpCase;

extern const OpCase linear_cases[], network_cases[], training_cases[], gradient_cases[]; /* each ends with a NULL name */

/* Runs every case on a backend: against the reference, and again with other thread counts (CPU) or once more (CUDA) for the
 * same bits. ops: NULL, or the table to use instead of the device's own. Returns the number of failed tests. */
int run_op_tests(BackendKind kind, const Ops *ops);

#endif
