/* Runs one op on one device against the float64 reference.
 *
 * A Run owns every operand of a test body: inputs are random values that the storage type holds exactly (so the reference
 * sees what the op sees), outputs start as NaN, and each buffer is followed by a guard that must survive. Whatever a body
 * checks enters the run's transcript, a hash of the raw bytes: two runs with the same seed must have the same transcript,
 * whatever the number of threads. Works on any backend: data goes through device_upload and device_download. */
#ifndef TESTS_OPS_HARNESS_H
#define TESTS_OPS_HARNESS_H

#include "kernels/ops.h"

enum { MAX_VALUES = 48, MAX_SEQUENCES = 6 };

/* One row of the table of shapes: the dimensions of a small network. */
typedef struct Shape {
    const char *name;
    int32_t lengths[MAX_SEQUENCES]; /* of the packed sequences, ended by 0 */
    int64_t width, query_heads, key_heads, head_dimension, hidden, vocabulary, rank;
} Shape;

typedef struct Value {
    Tensor tensor; /* on the device */
    double *host;  /* what was uploaded, [elements]; owned by the run */
} Value;

/* What one run read back where it was compared: kept on the way through one backend, compared with on another. */
typedef struct Recording {
    double *values; /* owned by the caller: free() */
    size_t count, room, next;
    bool replay; /* false: values are added */
} Recording;

typedef struct Run {
    Device *device;
    Arena *arena;
    const char *label; /* "matmul F32 odd" for messages */
    bool compare;      /* false: only the transcript is wanted */
    uint64_t random, transcript;
    Recording *recording; /* NULL, or filled or compared with by run_expect */
    bool from_own;        /* each backend goes on from its own rounded results, as expected does: their errors are compared */
    double worst;         /* largest error so far as a share of what was allowed */
    SequenceLayout layout;
    Value values[MAX_VALUES];
    int count;
    int32_t *host_indices[8];
    int index_count;
} Run;

/* Allowed error of an element: relative * |expected| + of_row * (largest |expected| of its row) + absolute. */
typedef struct Tolerance {
    double relative, of_row, absolute;
} Tolerance;

void run_open(Run *run, Device *device, const char *label, const Shape *shape, bool compare);
void run_close(Run *run); /* checks the guards */
int64_t shape_tokens(const Shape *shape);

/* Roughly normal values times scale, rounded to dtype. */
Value run_random(Run *run, DType dtype, int dimensions, const int64_t *shape, double scale);
/* Bytes 0xff: NaN in every floating type. */
Value run_poisoned(Run *run, DType dtype, int dimensions, const int64_t *shape);
Value run_values(Run *run, DType dtype, int dimensions, const int64_t *shape, const double *host);
/* I32 tensor; values are copied. */
Tensor run_indices(Run *run, const int32_t *host, int64_t count);
double run_uniform(Run *run); /* [0, 1) */
double round_to(DType dtype, double x);

#define SHAPE1(a)                                                                                                                \
    1, (const int64_t[]) { a }
#define SHAPE2(a, b)                                                                                                             \
    2, (const int64_t[]) { a, b }
#define SHAPE3(a, b, c)                                                                                                          \
    3, (const int64_t[]) { a, b, c }

/* Reads a tensor back as doubles (caller frees) and adds its bytes to the transcript. */
double *run_read(Run *run, Tensor tensor);
/* Reads, and fails the test where an element is further from expected than allowed. Rows = last dimension. */
void run_expect(Run *run, Value value, const double *expected, Tolerance tolerance, const char *what);
void run_succeeds(Run *run, Status status);

/* F32: accumulation only. BF16: one rounding of the result besides. */
Tolerance one_rounding(DType dtype);
/* BF16: results that pass through intermediates stored in BF16, `of_row` units in the last place of the row's largest. */
Tolerance stored_in(DType dtype, double of_row);

#endif
