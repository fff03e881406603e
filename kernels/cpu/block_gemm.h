/* Small fp32 matrix products on cache-resident blocks, for attention: C[m,n] (+)= A[m,k] B[k,n].
 *
 * A is read element by element with any strides (so A or A^T costs the same), B and C row by row in whole vectors: n must
 * be a multiple of LANES. Each element of C is summed over k in order. A register tile holds ROWS x (VECTORS * LANES)
 * results, which keeps both FMA units busy: 24 accumulators of 32 registers with AVX-512, 12 of 16 with AVX2. */
#ifndef KERNELS_CPU_BLOCK_GEMM_H
#define KERNELS_CPU_BLOCK_GEMM_H

#include "kernels/cpu/vector.h"

enum { TILE_ROWS = 6, TILE_VECTORS = LANES == 16 ? 4 : 2 };

/* One register tile; rows and vectors are constants after inlining. */
ALWAYS_INLINE void block_tile(const int rows, const int vectors, bool accumulate, int64_t k, const float *restrict a,
                              int64_t a_row, int64_t a_column, const float *restrict b, int64_t b_row, float *restrict c,
                              int64_t c_row) {
    Vector sum[TILE_ROWS][TILE_VECTORS];
#pragma GCC unroll 6
    for (int i = 0; i < rows; ++i)
#pragma GCC unroll 4
        for (int j = 0; j < vectors; ++j) sum[i][j] = accumulate ? vector_load(c + i * c_row + j * LANES) : (Vector){0};
    for (int64_t p = 0; p < k; ++p) {
        Vector row[TILE_VECTORS];
#pragma GCC unroll 4
        for (int j = 0; j < vectors; ++j) row[j] = vector_load(b + p * b_row + j * LANES);
#pragma GCC unroll 6
        for (int i = 0; i < rows; ++i) {
            float x = a[i * a_row + p * a_column];
#pragma GCC unroll 4
            for (int j = 0; j < vectors; ++j) sum[i][j] += x * row[j];
        }
    }
#pragma GCC unroll 6
    for (int i = 0; i < rows; ++i)
#pragma GCC unroll 4
        for (int j = 0; j < vectors; ++j) vector_store(c + i * c_row + j * LANES, sum[i][j]);
}

/* A strip of `vectors` vectors, all rows of C. */
ALWAYS_INLINE void block_strip(const int vectors, bool accumulate, int64_t m, int64_t k, const float *a, int64_t a_row,
                               int64_t a_column, const float *b, int64_t b_row, float *c, int64_t c_row) {
    for (; m >= TILE_ROWS; m -= TILE_ROWS, a += TILE_ROWS * a_row, c += TILE_ROWS * c_row)
        block_tile(TILE_ROWS, vectors, accumulate, k, a, a_row, a_column, b, b_row, c, c_row);
    if (m >= 4) {
        block_tile(4, vectors, accumulate, k, a, a_row, a_column, b, b_row, c, c_row);
        m -= 4, a += 4 * a_row, c += 4 * c_row;
    }
    if (m >= 2) {
        block_tile(2, vectors, accumulate, k, a, a_row, a_column, b, b_row, c, c_row);
        m -= 2, a += 2 * a_row, c += 2 * c_row;
    }
    if (m) block_tile(1, vectors, accumulate, k, a, a_row, a_column, b, b_row, c, c_row);
}

static inline void block_gemm(bool accumulate, int64_t m, int64_t n, int64_t k, const float *a, int64_t a_row, int64_t a_column,
                              const float *b, int64_t b_row, float *c, int64_t c_row) {
    for (; n >= TILE_VECTORS * LANES; n -= TILE_VECTORS * LANES, b += TILE_VECTORS * LANES, c += TILE_VECTORS * LANES)
        block_strip(TILE_VECTORS, accumulate, m, k, a, a_row, a_column, b, b_row, c, c_row);
    for (; n >= LANES; n -= LANES, b += LANES, c += LANES)
        block_strip(1, accumulate, m, k, a, a_row, a_column, b, b_row, c, c_row);
}

#endif
