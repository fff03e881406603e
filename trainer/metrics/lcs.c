#include "trainer/metrics/lcs.h"

#include <stdlib.h>
#include <string.h>

static Status reserve_masks(LcsScratch *s, size_t id_count) {
    if (id_count <= s->mask_capacity) return STATUS_OK;
    size_t capacity = 2 * id_count;
    uint64_t *masks;
    TRY_ALLOC(masks = realloc(s->masks, capacity * sizeof *masks));
    memset(masks + s->mask_capacity, 0, (capacity - s->mask_capacity) * sizeof *masks);
    s->masks = masks;
    s->mask_capacity = capacity;
    return STATUS_OK;
}

static Status reserve_rows(LcsScratch *s, size_t rows, size_t words) {
    if (rows > s->carry_capacity) {
        unsigned char *carries;
        TRY_ALLOC(carries = realloc(s->carries, 2 * rows));
        s->carries = carries;
        s->carry_capacity = 2 * rows;
    }
    size_t needed;
    if (__builtin_mul_overflow(rows, words, &needed) || needed > SIZE_MAX / (2 * sizeof(uint64_t)))
        FAIL("out of memory: a table of %zu times %zu words", rows, words);
    if (needed > s->row_capacity) {
        uint64_t *table;
        TRY_ALLOC(table = realloc(s->rows, needed * sizeof *table));
        s->rows = table;
        s->row_capacity = needed;
    }
    return STATUS_OK;
}

/* 64 columns of the table (fewer at the end of b), all rows of a: the row V becomes (V + U) | (V & ~U), U = V & mask of the
 * row's id; the sum carries into the next columns. keep: row i goes to keep[i * stride], NULL: no row is kept. Returns the
 * last row. */
static uint64_t run_columns(LcsScratch *s, const int32_t *a, size_t a_count, const int32_t *b, size_t columns, uint64_t *keep,
                            size_t stride) {
    for (size_t j = 0; j < columns; ++j) s->masks[b[j]] |= (uint64_t)1 << j;
    uint64_t row = UINT64_MAX;
    for (size_t i = 0; i < a_count; ++i) {
        uint64_t matches = row & s->masks[a[i]], sum, carried;
        unsigned char carry = __builtin_add_overflow(row, matches, &sum);
        carry |= __builtin_add_overflow(sum, (uint64_t)s->carries[i], &carried);
        s->carries[i] = carry;
        row = carried | (row & ~matches);
        if (keep) keep[i * stride] = row;
    }
    for (size_t j = 0; j < columns; ++j) s->masks[b[j]] = 0;
    return row;
}

/* Steps among the first `columns` columns (1 to 64) of a word. */
static size_t steps(uint64_t row, size_t columns) { return (size_t)__builtin_popcountll(~row << (64 - columns)); }

static Status run_table(LcsScratch *s, const int32_t *a, size_t a_count, const int32_t *b, size_t b_count, size_t id_count,
                        bool keep, size_t *length) {
    size_t words = (b_count + 63) / 64;
    *length = 0;
    TRY(reserve_masks(s, id_count));
    TRY(reserve_rows(s, a_count, keep ? words : 0));
    memset(s->carries, 0, a_count);
    for (size_t w = 0; w < words; ++w) {
        size_t columns = b_count - 64 * w < 64 ? b_count - 64 * w : 64;
        uint64_t last = run_columns(s, a, a_count, b + 64 * w, columns, keep ? s->rows + w : NULL, words);
        *length += steps(last, columns);
    }
    return STATUS_OK;
}

Status lcs_length(LcsScratch *scratch, const int32_t *a, size_t a_count, const int32_t *b, size_t b_count, size_t id_count,
                  size_t *length) {
    *length = 0;
    if (a_count == 0 || b_count == 0) return STATUS_OK;
    return run_table(scratch, a, a_count, b, b_count, id_count, false, length);
}

/* The table's entry of the kept row and the first `columns` columns. */
static size_t entry(const uint64_t *row, size_t columns) {
    size_t sum = 0, w = 0;
    for (; columns > 64; columns -= 64) sum += steps(row[w++], 64);
    return columns ? sum + steps(row[w], columns) : sum;
}

Status lcs_mark(LcsScratch *scratch, const int32_t *a, size_t a_count, const int32_t *b, size_t b_count, size_t id_count,
                bool *in_lcs) {
    size_t left, words = (b_count + 63) / 64; /* left: the table's entry at (i, j) */
    if (a_count == 0 || b_count == 0) return STATUS_OK;
    TRY(run_table(scratch, a, a_count, b, b_count, id_count, true, &left));
    for (size_t i = a_count, j = b_count; left > 0;) {
        const uint64_t *row = scratch->rows + (i - 1) * words;
        if (a[i - 1] == b[j - 1]) {
            in_lcs[--i] = true;
            --j;
            --left;
            continue;
        }
        /* Where the row steps up at column j, the row above is as high; else it may be one lower, and only then j moves. */
        bool steps_up = !(row[(j - 1) / 64] >> ((j - 1) % 64) & 1);
        if (!steps_up && (i == 1 || entry(row - words, j) < left))
            --j;
        else
            --i;
    }
    return STATUS_OK;
}

void lcs_scratch_free(LcsScratch *scratch) {
    free(scratch->masks);
    free(scratch->carries);
    free(scratch->rows);
    *scratch = (LcsScratch){0};
}
