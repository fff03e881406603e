/* Products a b^T of a few rows, at the speed at which b can be read: what generation runs on.
 *
 * Every element is one chain of sums over k in order, as in the kernels for many rows, so that a row has the same bits in
 * every batch. A vector therefore holds one term of LANES columns, not LANES terms of a column: squares of b are transposed
 * in registers. bf16 is moved as pairs of terms; where the CPU has AVX512_BF16 and oneDNN takes a pair per instruction, so
 * does the chain here. */
#ifndef KERNELS_CPU_FEW_ROWS_H
#define KERNELS_CPU_FEW_ROWS_H

#include "kernels/cpu/vector.h"

/* FEW_ROWS_COLUMNS: of one task, several panels of LANES columns. */
enum { FEW_ROWS = 4, FEW_ROWS_COLUMNS = 64 };

typedef enum Chain {
    CHAIN_F32,   /* one multiply-add per term */
    CHAIN_BF16,  /* one multiply-add per widened term */
    CHAIN_PAIRS, /* AVX512_BF16: one dot product per pair of terms */
} Chain;

typedef uint32_t Words __attribute__((vector_size(LANES * 4)));
typedef uint32_t WordsUnaligned __attribute__((vector_size(LANES * 4), aligned(2), may_alias));

ALWAYS_INLINE Words words_load(const void *p) { return (Words)(*(const WordsUnaligned *)p); }

/* The four steps of a transposition that know the number of lanes: pairs of words and of double words are interleaved within
 * parts of four words, then the parts are gathered. */
#if defined(__AVX512F__)
#define LOW_WORDS(x, y)    __builtin_shufflevector(x, y, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29)
#define HIGH_WORDS(x, y)   __builtin_shufflevector(x, y, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31)
#define LOW_DOUBLES(x, y)  __builtin_shufflevector(x, y, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29)
#define HIGH_DOUBLES(x, y) __builtin_shufflevector(x, y, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31)
#define LOW_PARTS(x, y)    __builtin_shufflevector(x, y, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23)
#define HIGH_PARTS(x, y)   __builtin_shufflevector(x, y, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31)
#define EVEN_PARTS(x, y)   __builtin_shufflevector(x, y, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27)
#define ODD_PARTS(x, y)    __builtin_shufflevector(x, y, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31)
#else
#define LOW_WORDS(x, y)    __builtin_shufflevector(x, y, 0, 8, 1, 9, 4, 12, 5, 13)
#define HIGH_WORDS(x, y)   __builtin_shufflevector(x, y, 2, 10, 3, 11, 6, 14, 7, 15)
#define LOW_DOUBLES(x, y)  __builtin_shufflevector(x, y, 0, 1, 8, 9, 4, 5, 12, 13)
#define HIGH_DOUBLES(x, y) __builtin_shufflevector(x, y, 2, 3, 10, 11, 6, 7, 14, 15)
#define LOW_PARTS(x, y)    __builtin_shufflevector(x, y, 0, 1, 2, 3, 8, 9, 10, 11)
#define HIGH_PARTS(x, y)   __builtin_shufflevector(x, y, 4, 5, 6, 7, 12, 13, 14, 15)
#endif

/* x[j] lane i becomes x[i] lane j. */
ALWAYS_INLINE void transpose_words(Words x[LANES]) {
    Words y[LANES];
#pragma GCC unroll 4
    for (int g = 0; g < LANES; g += 4) {
        Words low01 = LOW_WORDS(x[g], x[g + 1]), high01 = HIGH_WORDS(x[g], x[g + 1]);
        Words low23 = LOW_WORDS(x[g + 2], x[g + 3]), high23 = HIGH_WORDS(x[g + 2], x[g + 3]);
        y[g] = LOW_DOUBLES(low01, low23);
        y[g + 1] = HIGH_DOUBLES(low01, low23);
        y[g + 2] = LOW_DOUBLES(high01, high23);
        y[g + 3] = HIGH_DOUBLES(high01, high23);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) { /* part q of y[g + i] holds word 4 q + i of rows g .. g + 3 */
#if defined(__AVX512F__)
        Words front = LOW_PARTS(y[i], y[4 + i]), back = HIGH_PARTS(y[i], y[4 + i]);
        Words front2 = LOW_PARTS(y[8 + i], y[12 + i]), back2 = HIGH_PARTS(y[8 + i], y[12 + i]);
        x[i] = EVEN_PARTS(front, front2);
        x[4 + i] = ODD_PARTS(front, front2);
        x[8 + i] = EVEN_PARTS(back, back2);
        x[12 + i] = ODD_PARTS(back, back2);
#else
        x[i] = LOW_PARTS(y[i], y[4 + i]);
        x[4 + i] = HIGH_PARTS(y[i], y[4 + i]);
#endif
    }
}

ALWAYS_INLINE Words every_lane(const void *word) {
    uint32_t w;
    memcpy(&w, word, sizeof w);
    return (Words){0} + w;
}

/* One word (a term, or a pair of them) of a row and of LANES columns onto their sums. */
ALWAYS_INLINE Vector chain_add(const Chain chain, bool pair_is_full, Vector sum, Words a, Words b) {
    if (chain == CHAIN_F32) return sum + (Vector)a * (Vector)b;
#if defined(__AVX512F__)
    if (chain == CHAIN_PAIRS) {
        __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
        return sum;
    }
#endif
    sum += (Vector)(a << 16) * (Vector)(b << 16);
    if (pair_is_full) sum += (Vector)(a & 0xffff0000u) * (Vector)(b & 0xffff0000u);
    return sum;
}

/* sums[row] += LANES words of every row of a times those of LANES rows of b. */
ALWAYS_INLINE void few_rows_square(const Chain chain, const int rows, int words, bool last_is_full, Vector sums[FEW_ROWS],
                                   const char *const a[FEW_ROWS], const char *const b[LANES], int64_t at) {
    Words square[LANES];
#pragma GCC unroll 16
    for (int j = 0; j < LANES; ++j) square[j] = words_load(b[j] + at);
    transpose_words(square);
#pragma GCC unroll 16
    for (int p = 0; p < LANES; ++p) {
        if (p >= words) break;
#pragma GCC unroll 4
        for (int i = 0; i < rows; ++i)
            sums[i] = chain_add(chain, p + 1 < words || last_is_full, sums[i], every_lane(a[i] + at + 4 * p), square[p]);
    }
}

/* tile[rows, n] = a b^T for one panel of n <= LANES columns. */
ALWAYS_INLINE void few_rows_panel(const Chain chain, const int rows, float *tile, int64_t tile_stride, const char *a, int64_t lda,
                                  const char *b, int64_t ldb, int64_t n, int64_t k) {
    const int64_t bytes = chain == CHAIN_F32 ? 4 : 2, row_bytes = k * bytes, whole = row_bytes / (4 * LANES) * (4 * LANES);
    const char *rows_of_a[FEW_ROWS], *rows_of_b[LANES];
    Vector sums[FEW_ROWS] = {{0}};
    for (int i = 0; i < rows; ++i) rows_of_a[i] = a + i * lda * bytes;
    for (int64_t j = 0; j < LANES; ++j) rows_of_b[j] = b + (j < n ? j : n - 1) * ldb * bytes;
    for (int64_t at = 0; at < whole; at += 4 * LANES) {
        /* The next panel, one panel ahead: the rows are too many streams, and too short, for the CPU to see them coming. */
        for (int64_t j = 0; j < LANES; ++j) __builtin_prefetch(rows_of_b[j] + LANES * ldb * bytes + at, 0, 2);
        few_rows_square(chain, rows, LANES, true, sums, rows_of_a, rows_of_b, at);
    }
    if (whole < row_bytes) {
        char tail_a[FEW_ROWS][4 * LANES] = {{0}}, tail_b[LANES][4 * LANES] = {{0}};
        for (int i = 0; i < rows; ++i) rows_of_a[i] = memcpy(tail_a[i], rows_of_a[i] + whole, (size_t)(row_bytes - whole));
        for (int j = 0; j < LANES; ++j) rows_of_b[j] = memcpy(tail_b[j], rows_of_b[j] + whole, (size_t)(row_bytes - whole));
        few_rows_square(chain, rows, (int)((row_bytes - whole + 3) / 4), row_bytes % 4 == 0, sums, rows_of_a, rows_of_b, 0);
    }
    for (int i = 0; i < rows; ++i) memcpy(tile + i * tile_stride, &sums[i], (size_t)n * sizeof *tile);
}

ALWAYS_INLINE void few_rows_tile(const Chain chain, const int rows, float *tile, const char *a, int64_t lda, const char *b,
                                 int64_t ldb, int64_t n, int64_t k) {
    for (int64_t j = 0; j < n; j += LANES)
        few_rows_panel(chain, rows, tile + j, n, a, lda, b + j * ldb * (chain == CHAIN_F32 ? 4 : 2), ldb,
                       n - j < LANES ? n - j : LANES, k);
}

ALWAYS_INLINE void few_rows_by_count(const Chain chain, float *tile, const void *a, int64_t lda, const void *b, int64_t ldb,
                                     int64_t m, int64_t n, int64_t k) {
    if (m == 1)
        few_rows_tile(chain, 1, tile, a, lda, b, ldb, n, k);
    else if (m == 2)
        few_rows_tile(chain, 2, tile, a, lda, b, ldb, n, k);
    else if (m == 3)
        few_rows_tile(chain, 3, tile, a, lda, b, ldb, n, k);
    else
        few_rows_tile(chain, 4, tile, a, lda, b, ldb, n, k);
}

/* tile[m,n], dense, = a[m,k] b[n,k]^T; m <= FEW_ROWS, n <= FEW_ROWS_COLUMNS. CHAIN_PAIRS needs a CPU with AVX512_BF16. */
static inline void few_rows(Chain chain, float *tile, const void *a, int64_t lda, const void *b, int64_t ldb, int64_t m,
                            int64_t n, int64_t k) {
    if (chain == CHAIN_F32)
        few_rows_by_count(CHAIN_F32, tile, a, lda, b, ldb, m, n, k);
    else if (chain == CHAIN_BF16)
        few_rows_by_count(CHAIN_BF16, tile, a, lda, b, ldb, m, n, k);
    else
        few_rows_by_count(CHAIN_PAIRS, tile, a, lda, b, ldb, m, n, k);
}

#endif
