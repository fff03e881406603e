/* Products a b^T whose rows do not depend on each other, for CPUs where oneDNN's do.
 *
 * There the kernel that oneDNN takes for a few rows, or for those that are left over behind full tiles, adds in another order
 * than the one for many rows: a row would have other bits in another batch. Here every element is one chain of sums over k in
 * order, whatever the number of rows. */
#ifndef KERNELS_CPU_ROW_PRODUCT_H
#define KERNELS_CPU_ROW_PRODUCT_H

#include "kernels/cpu/block_gemm.h"

enum { ROW_PRODUCT_K = 512, ROW_PRODUCT_N = 128, ROW_PRODUCT_M = 256 };
/* Floats of workspace: packed b, widened a, the padded tile. */
enum { ROW_PRODUCT_FLOATS = (ROW_PRODUCT_N + ROW_PRODUCT_M) * ROW_PRODUCT_K + ROW_PRODUCT_M * ROW_PRODUCT_N };

/* to[k, padded] = transpose of b[n,k] as fp32; columns from n on are zero. Blocks of 8 x 8 keep both sides in few cache lines. */
ALWAYS_INLINE void row_product_pack(bool bf16, float *to, const void *b, int64_t ldb, int64_t n, int64_t k, int64_t padded) {
    if (padded > n) memset(to, 0, (size_t)(k * padded) * sizeof *to);
    for (int64_t j0 = 0; j0 < n; j0 += 8)
        for (int64_t k0 = 0; k0 < k; k0 += 8) {
            int64_t columns = n - j0 < 8 ? n - j0 : 8, terms = k - k0 < 8 ? k - k0 : 8;
            for (int64_t j = 0; j < columns; ++j)
                for (int64_t i = 0; i < terms; ++i)
                    to[(k0 + i) * padded + j0 + j] = element_load(bf16, b, (j0 + j) * ldb + k0 + i);
        }
}

/* tile[m,n], dense, = a[m,k] b[n,k]^T; m <= ROW_PRODUCT_M, n <= ROW_PRODUCT_N. */
static inline void row_product(bool bf16, float *tile, const void *a, int64_t lda, const void *b, int64_t ldb, int64_t m,
                               int64_t n, int64_t k, float *workspace) {
    float *packed = workspace, *widened = packed + ROW_PRODUCT_N * ROW_PRODUCT_K, *sums = widened + ROW_PRODUCT_M * ROW_PRODUCT_K;
    int64_t padded = (n + LANES - 1) / LANES * LANES;
    for (int64_t k0 = 0; k0 < k; k0 += ROW_PRODUCT_K) {
        int64_t terms = k - k0 < ROW_PRODUCT_K ? k - k0 : ROW_PRODUCT_K, stride = bf16 ? terms : lda;
        const float *rows = (const float *)a + k0;
        BY_STORAGE(bf16, row_product_pack, packed, element_at(bf16, b, k0), ldb, n, terms, padded);
        if (bf16) {
            for (int64_t i = 0; i < m; ++i)
                for (int64_t j = 0; j < terms; ++j) widened[i * terms + j] = element_load(true, a, i * lda + k0 + j);
            rows = widened;
        }
        block_gemm(k0 > 0, m, padded, terms, rows, stride, 1, packed, padded, sums, padded);
    }
    for (int64_t i = 0; i < m; ++i) memcpy(tile + i * n, sums + i * padded, (size_t)n * sizeof *tile);
}

#endif
