/* Tensors: a typed, shaped view of device memory. Row-major and contiguous; never owns its memory. */
#ifndef KERNELS_TENSOR_H
#define KERNELS_TENSOR_H

#include <stdint.h>
#include <stddef.h>

typedef enum DType { DTYPE_F32, DTYPE_BF16, DTYPE_F64, DTYPE_I32, DTYPE_I64, DTYPE_U8 } DType;

#define TENSOR_MAX_DIMENSIONS 4

typedef struct Tensor {
    void *data; /* NULL = absent, for optional operands */
    DType dtype;
    int dimensions;
    int64_t shape[TENSOR_MAX_DIMENSIONS];
} Tensor;

static inline size_t dtype_bytes(DType dtype) {
    switch (dtype) {
    case DTYPE_F64:
    case DTYPE_I64: return 8;
    case DTYPE_F32:
    case DTYPE_I32: return 4;
    case DTYPE_BF16: return 2;
    case DTYPE_U8: return 1;
    }
    return 0;
}

static inline Tensor tensor_1d(void *data, DType dtype, int64_t n) { return (Tensor){data, dtype, 1, {n, 1, 1, 1}}; }
static inline Tensor tensor_2d(void *data, DType dtype, int64_t rows, int64_t columns) {
    return (Tensor){data, dtype, 2, {rows, columns, 1, 1}};
}
static inline Tensor tensor_3d(void *data, DType dtype, int64_t a, int64_t b, int64_t c) {
    return (Tensor){data, dtype, 3, {a, b, c, 1}};
}
static inline int64_t tensor_elements(Tensor t) {
    int64_t n = 1;
    for (int i = 0; i < t.dimensions; ++i) n *= t.shape[i];
    return n;
}
static inline size_t tensor_bytes(Tensor t) { return (size_t)tensor_elements(t) * dtype_bytes(t.dtype); }
/* Same memory seen as [rows, columns]: columns = last dimension. */
static inline Tensor tensor_as_rows(Tensor t) {
    int64_t columns = t.shape[t.dimensions - 1];
    return tensor_2d(t.data, t.dtype, columns ? tensor_elements(t) / columns : 0, columns);
}
static inline Tensor tensor_absent(void) { return (Tensor){NULL, DTYPE_F32, 1, {0, 1, 1, 1}}; }

#endif
