/* The shapes of matrix products, so that how each is computed can be decided before training starts.
 *
 * Packed batches differ in length, so one size of a product, its tokens, differs from batch to batch: M, or K where a is
 * transposed (weight gradients sum over tokens). Shapes that differ in their tokens only are a family. Tokens are counted in
 * buckets, eight to each doubling, and a plan is chosen for the upper bound of a bucket: a run meets a few hundred plans, all
 * known beforehand, and a product is never planned for a size more than an eighth larger than it is. */
#ifndef KERNELS_MATMUL_SHAPES_H
#define KERNELS_MATMUL_SHAPES_H

#include "kernels/device.h"

/* Everything that the choice of an algorithm depends on. Compared as bytes: no padding, made by matmul_shape. */
typedef struct MatmulShape {
    int64_t m, n, k;                               /* c[M,N] = op(a)[M,K] op(b)[K,N] */
    int64_t a_stride;                              /* elements between the rows of a as stored */
    int32_t alignment_a, alignment_b, alignment_c; /* largest power of two up to 16 that divides the address */
    uint8_t input_type, output_type;               /* DType */
    uint8_t transpose_a, transpose_b, has_bias, reserved[7];
} MatmulShape;

/* Shape of matmul (kernels/ops.h) with rows of a lying a_stride elements apart. STATUS_FAILED for types that it does not take. */
Status matmul_shape(MatmulShape *out, Tensor c, Tensor a, int64_t a_stride, bool transpose_a, Tensor b, bool transpose_b,
                    bool has_bias);
int64_t matmul_shape_tokens(const MatmulShape *shape);
MatmulShape matmul_shape_with_tokens(MatmulShape shape, int64_t tokens);
/* Upper bound of the bucket: 1, 2 ... 16, 18, 20 ... 32, 36 ... The next bucket's is matmul_bucket(bound + 1). */
int64_t matmul_bucket(int64_t tokens);
double matmul_shape_flops(const MatmulShape *shape);

/* Families, each with the most tokens it was met with. Zero-initialise. */
typedef struct MatmulFamily {
    MatmulShape largest;
    int64_t calls;
} MatmulFamily;
typedef struct MatmulFamilies {
    MatmulFamily *items;
    int64_t count, room;
} MatmulFamilies;
Status matmul_families_add(MatmulFamilies *families, MatmulShape shape);
void matmul_families_free(MatmulFamilies *families);

/* From now on a planner for CUDA adds the products that its ops would make; NULL: no more. families must outlive that. */
void planner_record_matmuls(Device *planner, MatmulFamilies *families);

#endif
