/* Matrix products, cut into output tiles that one thread computes alone.
 *
 * The tiling depends on the shape only, so the bits do not depend on the number of threads. oneDNN writes each tile densely
 * in fp32 into the thread's workspace (its fastest path wants a dense result), and the epilogue here applies alpha, beta and
 * bias and rounds once. Measured against whole multi-threaded oneDNN calls this costs 0 to 5 %. */
#include "kernels/cpu/context.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/few_rows.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/row_product.h"
#include "kernels/cpu/vector.h"

#include <omp.h>

enum { TILE_M = 256, TILE_N = 128, MIN_TILE_M = 64, MIN_TILE_N = 64, ENOUGH_TILES = 24 };
/* From here on a panel of b no longer fits the cache: it should be read once. */
enum { LONG_K = 8192 };
/* Multiplications, and for few rows elements of b, that one thread does in less time than several take to come together. */
enum { SERIAL_WORK = 100000, SERIAL_FEW = 300000 };
/* Terms of the long sum per step where operands are staged: widened to fp32, or packed. */
enum { WIDEN_K = 512, PACK_K = 8192 };

typedef enum Staging {
    DIRECT,  /* oneDNN reads the operands where they lie */
    PACKED,  /* b is copied densely first: a strided bf16 b costs oneDNN a fifth of its speed */
    WIDENED, /* a and b are copied to fp32: this CPU has no bf16 product */
    OWN,     /* row_product.h: oneDNN's rows depend on each other on this CPU */
    FEW      /* few_rows.h */
} Staging;

typedef struct Product {
    MatmulCache *cache;
    const char *a, *b, *bias;
    char *c;
    int64_t m, n, k, lda, ldb;
    int64_t tile_m, tile_n, block_k; /* block_k = k when direct */
    bool transpose_a, transpose_b, bf16, c_bf16;
    Staging staging;
    Chain chain; /* FEW */
    float alpha, beta;
    const Gemm *gemm[2][2][2]; /* last tile row?, last tile column?, last block of k? */
} Product;

static int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }
static int64_t minimum(int64_t a, int64_t b) { return a < b ? a : b; }

/* Large tiles read operands least often; small problems get smaller ones, so that many cores have work. */
static void choose_tiles(Product *p) {
    p->tile_m = TILE_M;
    p->tile_n = TILE_N;
    while (ceil_divide(p->m, p->tile_m) * ceil_divide(p->n, p->tile_n) < ENOUGH_TILES) {
        if (p->tile_n > MIN_TILE_N && p->n > MIN_TILE_N)
            p->tile_n /= 2;
        else if (p->tile_m > MIN_TILE_M && p->m > MIN_TILE_M && p->k < LONG_K)
            p->tile_m /= 2;
        else
            break;
    }
    p->tile_m = minimum(p->tile_m, p->m);
    p->tile_n = minimum(p->tile_n, p->n);
}

static GemmShape tile_shape(const Product *p, int64_t m, int64_t n, int64_t k) {
    GemmShape shape = {.m = m, .n = n, .k = k, .lda = p->lda, .ldb = p->ldb, .bf16 = p->bf16 && p->staging != WIDENED};
    shape.transpose_a = p->transpose_a;
    shape.transpose_b = p->transpose_b;
    if (p->staging == WIDENED) shape.lda = p->transpose_a ? m : k;
    if (p->staging != DIRECT) shape.ldb = p->transpose_b ? k : n;
    return shape;
}

static int64_t extent(int64_t total, int64_t step, bool last) {
    return last ? total - (ceil_divide(total, step) - 1) * step : step;
}

static Status prepare(Product *p) {
    for (int i = 0; i < 8; ++i) {
        bool last_m = i & 1, last_n = i & 2, last_k = i & 4;
        int64_t m = extent(p->m, p->tile_m, last_m), n = extent(p->n, p->tile_n, last_n), k = extent(p->k, p->block_k, last_k);
        TRY(gemm_prepare(p->cache, tile_shape(p, m, n, k), &p->gemm[last_m][last_n][last_k]));
    }
    return STATUS_OK;
}

/* One slow tile among fast ones would have no primitive. */
static bool all_prepared(const Product *p) {
    bool all = true;
    for (int i = 0; i < 8; ++i) all = all && p->gemm[i & 1][i >> 1 & 1][i >> 2];
    return all;
}

/* Dense copies of a [rows, columns] part of a bf16 matrix. */
static void widen(float *to, const uint16_t *from, int64_t stride, int64_t rows, int64_t columns) {
    for (int64_t r = 0; r < rows; ++r) {
        const uint16_t *x = from + r * stride;
        float *y = to + r * columns;
#pragma omp simd
        for (int64_t i = 0; i < columns; ++i) y[i] = bf16_to_float(x[i]);
    }
}
static void pack(uint16_t *to, const uint16_t *from, int64_t stride, int64_t rows, int64_t columns) {
    for (int64_t r = 0; r < rows; ++r) memcpy(to + r * columns, from + r * stride, (size_t)columns * sizeof *to);
}

typedef struct Tile {
    int64_t row, column, m, n;
    bool last_m, last_n;
} Tile;

static const char *operand_a(const Product *p, const Tile *t, int64_t k0) {
    return p->a + (p->bf16 ? 2 : 4) * (p->transpose_a ? k0 * p->lda + t->row : t->row * p->lda + k0);
}
static const char *operand_b(const Product *p, const Tile *t, int64_t k0) {
    return p->b + (p->bf16 ? 2 : 4) * (p->transpose_b ? t->column * p->ldb + k0 : k0 * p->ldb + t->column);
}

/* tile = op(a) op(b) by blocks of k, each staged first, added in order. */
static int staged_tile(const Product *p, const Tile *t, int thread, float *tile) {
    float *part = tile + TILE_M * TILE_N, *staged_b = part + TILE_M * TILE_N, *staged_a = staged_b + TILE_N * WIDEN_K;
    for (int64_t k0 = 0; k0 < p->k; k0 += p->block_k) {
        int64_t k = minimum(p->block_k, p->k - k0), rows_b = p->transpose_b ? t->n : k, columns_b = p->transpose_b ? k : t->n;
        const void *a = operand_a(p, t, k0), *b = operand_b(p, t, k0);
        if (p->staging == WIDENED) {
            widen(staged_a, a, p->lda, p->transpose_a ? k : t->m, p->transpose_a ? t->m : k);
            widen(staged_b, b, p->ldb, rows_b, columns_b);
            a = staged_a;
        } else {
            pack((uint16_t *)staged_b, b, p->ldb, rows_b, columns_b);
        }
        const Gemm *gemm = p->gemm[t->last_m][t->last_n][k0 + k == p->k];
        int error = gemm_run(p->cache, gemm, thread, a, staged_b, k0 ? part : tile);
        if (error) return error;
        if (!k0) continue;
#pragma omp simd
        for (int64_t i = 0; i < t->m * t->n; ++i) tile[i] += part[i];
    }
    return 0;
}

static int own_tile(const Product *p, const Tile *t, float *tile) {
    row_product(p->bf16, tile, operand_a(p, t, 0), p->lda, operand_b(p, t, 0), p->ldb, t->m, t->n, p->k, tile + TILE_M * TILE_N);
    return 0;
}

static int few_tile(const Product *p, const Tile *t, float *tile) {
    few_rows(p->chain, tile, operand_a(p, t, 0), p->lda, operand_b(p, t, 0), p->ldb, t->m, t->n, p->k);
    return 0;
}

/* ---- whose kernels give a row the same bits whatever the number of rows ---- */

enum { PROBE_M = 64, PROBE_N = 64, PROBE_MOST_K = 5003 };
typedef struct Probe {
    MatmulCache *cache;
    GemmShape shape; /* m = PROBE_M */
    float *all, *some, *a, *b;
} Probe;

static Status probe_open(Probe *p, MatmulCache *cache, bool bf16, int64_t k, float *workspace) {
    *p = (Probe){.cache = cache, .all = workspace, .some = workspace + PROBE_M * PROBE_N};
    p->shape = (GemmShape){.m = PROBE_M, .n = PROBE_N, .k = k, .lda = k, .ldb = k, .bf16 = bf16, .transpose_b = 1};
    p->a = p->some + PROBE_M * PROBE_N;
    p->b = p->a + PROBE_M * PROBE_MOST_K;
    for (int64_t i = 0; i < PROBE_M * k; ++i) {
        element_store(bf16, p->a, i, (float)(i * 7919 % 1009) / 1009.0f - 0.5f);
        element_store(bf16, p->b, i, (float)(i * 6101 % 997) / 997.0f - 0.5f);
    }
    return STATUS_OK;
}

/* Bits of oneDNN's products of these numbers of rows against those of the first rows of its product of PROBE_M rows. */
static Status same_bits(const Probe *p, const int64_t *rows, size_t count, bool *same) {
    for (size_t i = 0; i < count && *same; ++i) {
        GemmShape shape = p->shape;
        const Gemm *gemm;
        shape.m = rows[i];
        TRY(gemm_prepare(p->cache, shape, &gemm));
        if (!gemm) {
            *same = false;
            return STATUS_OK;
        }
        int error = gemm_run(p->cache, gemm, 0, p->a, p->b, p->some);
        if (error) FAIL("oneDNN error %d while comparing products", error);
        *same = memcmp(p->all, p->some, (size_t)(rows[i] * PROBE_N) * sizeof *p->some) == 0;
    }
    return STATUS_OK;
}

/* The order of sums by which few_rows may follow oneDNN. */
static bool chain_of(bool bf16, Chain *chain) {
    *chain = bf16 ? CHAIN_PAIRS : CHAIN_F32;
#if defined(__AVX512F__)
    return !bf16 || __builtin_cpu_supports("avx512bf16");
#else
    return !bf16;
#endif
}

static Status probe_rows(MatmulCache *cache, bool bf16, float *workspace, RowKernels *out) {
    /* Odd and even, and longer than any block of k. */
    static const int64_t lengths[] = {601, 1024, PROBE_MOST_K}, few[] = {1, 2, 3, FEW_ROWS}, many[] = {FEW_ROWS + 1, 17, 33};
    Chain chain;
    bool chained = chain_of(bf16, &chain), library = true, fewest = true;
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths && library; ++i) {
        Probe p;
        const Gemm *gemm;
        TRY(probe_open(&p, cache, bf16, lengths[i], workspace));
        TRY(gemm_prepare(cache, p.shape, &gemm));
        library = gemm; /* else it would be widened, with kernels for fp32 */
        if (!gemm) break;
        int error = gemm_run(cache, gemm, 0, p.a, p.b, p.all);
        if (error) FAIL("oneDNN error %d while comparing products", error);
        TRY(same_bits(&p, many, sizeof many / sizeof *many, &library));
        TRY(same_bits(&p, few, sizeof few / sizeof *few, &fewest));
        for (int64_t m = 1; m <= FEW_ROWS && chained; ++m) {
            few_rows(chain, p.some, p.a, p.shape.lda, p.b, p.shape.ldb, m, PROBE_N, p.shape.k);
            chained = memcmp(p.all, p.some, (size_t)(m * PROBE_N) * sizeof *p.some) == 0;
        }
    }
    *out = library && chained ? ROWS_CHAINED : library && fewest ? ROWS_LIBRARY : ROWS_OWN;
    return STATUS_OK;
}

static Status row_kernels(Device *device, bool bf16, RowKernels *out) {
    CpuContext *context = cpu_context(device);
    if (context->rows[bf16] == ROWS_UNKNOWN)
        TRY(probe_rows(context->matmul, bf16, cpu_workspace(device, 0), &context->rows[bf16]));
    *out = context->rows[bf16];
    return STATUS_OK;
}

ALWAYS_INLINE void epilogue_row(bool bf16, bool has_bias, bool bias_bf16, void *c, const float *sum, const void *bias, int64_t n,
                                float alpha, float beta) {
    if (beta == 0.0f) { /* c may hold anything, NaN too */
#pragma omp simd
        for (int64_t j = 0; j < n; ++j)
            element_store(bf16, c, j, alpha * sum[j] + (has_bias ? element_load(bias_bf16, bias, j) : 0.0f));
    } else {
#pragma omp simd
        for (int64_t j = 0; j < n; ++j)
            element_store(bf16, c, j,
                          alpha * sum[j] + beta * element_load(bf16, c, j) +
                              (has_bias ? element_load(bias_bf16, bias, j) : 0.0f));
    }
}

static void epilogue(const Product *p, const Tile *t, const float *sum) {
    for (int64_t i = 0; i < t->m; ++i, sum += t->n) {
        int64_t at = (t->row + i) * p->n + t->column;
        const void *bias = p->bias ? p->bias + t->column * (p->bf16 ? 2 : 4) : NULL;
        if (p->c_bf16 && bias)
            epilogue_row(true, true, true, p->c + 2 * at, sum, bias, t->n, p->alpha, p->beta);
        else if (p->c_bf16)
            epilogue_row(true, false, false, p->c + 2 * at, sum, NULL, t->n, p->alpha, p->beta);
        else if (bias && p->bf16)
            epilogue_row(false, true, true, p->c + 4 * at, sum, bias, t->n, p->alpha, p->beta);
        else if (bias)
            epilogue_row(false, true, false, p->c + 4 * at, sum, bias, t->n, p->alpha, p->beta);
        else
            epilogue_row(false, false, false, p->c + 4 * at, sum, NULL, t->n, p->alpha, p->beta);
    }
}

static Status run(Device *device, const Product *p) {
    int64_t tiles_m = ceil_divide(p->m, p->tile_m), tiles_n = ceil_divide(p->n, p->tile_n);
    bool serial = p->staging == FEW ? p->n * p->k <= SERIAL_FEW : p->m * p->n * p->k <= SERIAL_WORK;
    int failed = 0;
#pragma omp parallel for schedule(dynamic, 1) num_threads(device->threads) if (!serial)
    for (int64_t i = 0; i < tiles_m * tiles_n; ++i) { /* neighbours in i share a panel of b */
        Tile t = {.row = i % tiles_m * p->tile_m, .column = i / tiles_m * p->tile_n};
        t.m = minimum(p->tile_m, p->m - t.row);
        t.n = minimum(p->tile_n, p->n - t.column);
        t.last_m = t.row + t.m == p->m;
        t.last_n = t.column + t.n == p->n;
        int thread = omp_get_thread_num(), error;
        float *tile = cpu_workspace(device, thread);
        if (p->staging == FEW)
            error = few_tile(p, &t, tile);
        else if (p->staging == OWN)
            error = own_tile(p, &t, tile);
        else if (p->staging != DIRECT)
            error = staged_tile(p, &t, thread, tile);
        else
            error = gemm_run(p->cache, p->gemm[t.last_m][t.last_n][1], thread, operand_a(p, &t, 0), operand_b(p, &t, 0), tile);
        if (error) {
#pragma omp atomic write
            failed = error;
        } else {
            epilogue(p, &t, tile);
        }
    }
    if (failed)
        FAIL("oneDNN error %d while running a product of %lld x %lld x %lld", failed, (long long)p->m, (long long)p->n,
             (long long)p->k);
    return STATUS_OK;
}

/* An empty sum: only beta and bias act. */
static void empty_sum(const Product *p) {
    float zeros[TILE_N] = {0};
    for (int64_t row = 0; row < p->m; ++row)
        for (int64_t column = 0; column < p->n; column += TILE_N) {
            Tile t = {.row = row, .column = column, .m = 1, .n = minimum(TILE_N, p->n - column)};
            epilogue(p, &t, zeros);
        }
}

Status cpu_matmul_strided(Device *device, Tensor c, Tensor a, int64_t lda, bool transpose_a, Tensor b, bool transpose_b,
                          Tensor bias, float alpha, float beta) {
    if (a.dtype != b.dtype || (a.dtype != DTYPE_F32 && a.dtype != DTYPE_BF16)) FAIL("matmul takes two F32 or two BF16 operands");
    Product p = {.cache = cpu_context(device)->matmul,
                 .a = a.data,
                 .b = b.data,
                 .c = c.data,
                 .bias = bias.data,
                 .m = c.shape[0],
                 .n = c.shape[1],
                 .k = a.shape[transpose_a ? 0 : 1],
                 .lda = lda,
                 .ldb = b.shape[1],
                 .transpose_a = transpose_a,
                 .transpose_b = transpose_b,
                 .bf16 = a.dtype == DTYPE_BF16,
                 .c_bf16 = c.dtype == DTYPE_BF16,
                 .alpha = alpha,
                 .beta = beta};
    if (p.m == 0 || p.n == 0) return STATUS_OK;
    if (p.k == 0) {
        empty_sum(&p);
        return STATUS_OK;
    }
    choose_tiles(&p);
    matmul_cache_trim(p.cache);
    if (!transpose_a && transpose_b) { /* a layer's forward pass */
        RowKernels kernels;
        TRY(row_kernels(device, p.bf16, &kernels));
        if (kernels != ROWS_LIBRARY && p.m <= FEW_ROWS) {
            p.staging = FEW;
            p.chain = !p.bf16 ? CHAIN_F32 : kernels == ROWS_OWN ? CHAIN_BF16 : CHAIN_PAIRS;
            p.tile_n = minimum(FEW_ROWS_COLUMNS, p.n);
            return run(device, &p);
        }
        if (kernels == ROWS_OWN) {
            p.staging = OWN;
            return run(device, &p);
        }
    }
    /* Packing pays where a tile has many rows, and where b is not read across anyway (transposed a goes another way). */
    p.staging = p.bf16 && !transpose_a && !transpose_b && p.tile_n < p.n && p.m >= TILE_M ? PACKED : DIRECT;
    p.block_k = p.staging == PACKED ? minimum(PACK_K, p.k) : p.k;
    TRY(prepare(&p));
    if (!all_prepared(&p)) {
        p.staging = WIDENED;
        p.block_k = minimum(WIDEN_K, p.k);
        TRY(prepare(&p));
    }
    return run(device, &p);
}

Status cpu_matmul(Device *device, Arena *scratch, Tensor c, Tensor a, bool transpose_a, Tensor b, bool transpose_b, Tensor bias,
                  float alpha, float beta) {
    (void)scratch;
    return cpu_matmul_strided(device, c, a, a.shape[1], transpose_a, b, transpose_b, bias, alpha, beta);
}
