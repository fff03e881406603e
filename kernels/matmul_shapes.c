#include "kernels/matmul_shapes.h"

#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(MatmulShape) == 56, "a shape is compared as bytes and so has no padding");

/* No access is wider than 16 bytes. What is not there yet (weights on a planner) will be aligned. */
static int32_t alignment_of(const void *data) {
    int32_t alignment = 16;
    while ((uintptr_t)data % (uintptr_t)alignment) alignment /= 2;
    return alignment;
}

/* A tensor seen as [rows, columns]: columns = last dimension. */
static int64_t columns_of(Tensor t) { return t.shape[t.dimensions - 1]; }
static int64_t rows_of(Tensor t) {
    int64_t rows = 1;
    for (int i = 0; i + 1 < t.dimensions; ++i) rows *= t.shape[i];
    return rows;
}

Status matmul_shape(MatmulShape *out, Tensor c, Tensor a, int64_t a_stride, bool transpose_a, Tensor b, bool transpose_b,
                    bool has_bias) {
    if (a.dtype != b.dtype || (a.dtype != DTYPE_F32 && a.dtype != DTYPE_BF16) || (c.dtype != DTYPE_F32 && c.dtype != a.dtype))
        FAIL("matmul: dtypes %d, %d to %d are not implemented", (int)a.dtype, (int)b.dtype, (int)c.dtype);
    memset(out, 0, sizeof *out);
    out->m = transpose_a ? columns_of(a) : rows_of(a);
    out->k = transpose_a ? rows_of(a) : columns_of(a);
    out->n = transpose_b ? rows_of(b) : columns_of(b);
    out->a_stride = a_stride;
    out->alignment_a = alignment_of(a.data);
    out->alignment_b = alignment_of(b.data);
    out->alignment_c = alignment_of(c.data);
    out->input_type = (uint8_t)a.dtype;
    out->output_type = (uint8_t)c.dtype;
    out->transpose_a = transpose_a;
    out->transpose_b = transpose_b;
    out->has_bias = has_bias;
    return STATUS_OK;
}

int64_t matmul_shape_tokens(const MatmulShape *shape) { return shape->transpose_a ? shape->k : shape->m; }

MatmulShape matmul_shape_with_tokens(MatmulShape shape, int64_t tokens) {
    *(shape.transpose_a ? &shape.k : &shape.m) = tokens;
    return shape;
}

int64_t matmul_bucket(int64_t tokens) {
    int64_t step = 1;
    while (tokens > 16 * step) step *= 2;
    return (tokens + step - 1) / step * step;
}

double matmul_shape_flops(const MatmulShape *shape) { return 2.0 * (double)shape->m * (double)shape->n * (double)shape->k; }

Status matmul_families_add(MatmulFamilies *families, MatmulShape shape) {
    const int64_t tokens = matmul_shape_tokens(&shape);
    for (int64_t i = 0; i < families->count; ++i) {
        MatmulFamily *family = &families->items[i];
        const MatmulShape same = matmul_shape_with_tokens(family->largest, tokens);
        if (memcmp(&same, &shape, sizeof shape) != 0) continue;
        if (tokens > matmul_shape_tokens(&family->largest)) family->largest = shape;
        ++family->calls;
        return STATUS_OK;
    }
    if (families->count == families->room) {
        const int64_t room = families->room ? 2 * families->room : 64;
        MatmulFamily *items = realloc(families->items, (size_t)room * sizeof *items);
        TRY_ALLOC(items);
        families->items = items;
        families->room = room;
    }
    families->items[families->count++] = (MatmulFamily){shape, 1};
    return STATUS_OK;
}

void matmul_families_free(MatmulFamilies *families) {
    free(families->items);
    *families = (MatmulFamilies){0};
}
