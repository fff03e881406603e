/* Single-threaded matrix products by oneDNN: the only file pair that knows the library (2.6 to 3.x).
 *
 * A GemmShape describes one tile: c[m,n] F32, dense, = op(a) op(b). Its primitive is built once, for one thread, and kept;
 * then any number of threads may run it at the same time, each with its own thread number. A tile computed by one thread
 * has the same bits whichever thread it is and however many there are: what matmul.c builds determinism on. */
#ifndef KERNELS_CPU_GEMM_H
#define KERNELS_CPU_GEMM_H

#include "io/status.h"
#include "kernels/cpu/level.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct MatmulCache MatmulCache;
typedef struct Gemm Gemm;

/* a[m,k] with row stride lda, or a[k,m] when transpose_a; b[k,n] with row stride ldb, or b[n,k] when transpose_b. */
typedef struct GemmShape {
    int64_t m, n, k, lda, ldb;
    int32_t bf16, transpose_a, transpose_b, reserved; /* 32 bits each and no padding: compared as bytes */
} GemmShape;

#define matmul_cache_open  CPU_NAME(matmul_cache_open)
#define matmul_cache_close CPU_NAME(matmul_cache_close)
#define gemm_prepare       CPU_NAME(gemm_prepare)
#define gemm_run           CPU_NAME(gemm_run)
#define matmul_cache_trim  CPU_NAME(matmul_cache_trim)

Status matmul_cache_open(int threads, MatmulCache **out);
void matmul_cache_close(MatmulCache *cache);
/* Variable packed lengths bring new shapes for ever: empties the cache when it has grown past its limit. Every Gemm handed
 * out before is then gone. */
void matmul_cache_trim(MatmulCache *cache);
/* Finds or builds the primitive; call outside of parallel regions. *out is NULL when oneDNN has no fast implementation on
 * this CPU (bf16 without AVX-512 BF16): the caller widens. The cache owns it. */
Status gemm_prepare(MatmulCache *cache, GemmShape shape, const Gemm **out);
/* c = op(a) op(b). Returns oneDNN's error number, 0 on success. */
int gemm_run(MatmulCache *cache, const Gemm *gemm, int thread, const void *a, const void *b, float *c);

#endif
