/* Attention backward. With P = softmax(S), D = rowsum(dout * out):
 *   dV = P^T dout;  dP = dout V^T;  dS = P * (dP - D) * scale;  dQ = dS K;  dK = dS^T Q.
 *
 * A task is one range of keys of one sequence for one query head. It alone writes its dk and dv (per query head) and its
 * partial dq; a last pass adds query heads of a group and key ranges in order. Ranges depend on the longest sequence of keys
 * only, so the bits do not depend on the number of threads. */
#include "kernels/cpu/attention_blocks.h"
#include "kernels/cpu/context.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/scratch.h"

#include <omp.h>

typedef struct Backward {
    Tensor dq, dk, dv, dout, out, lse, q, k, v;
    const SequenceLayout *queries, *keys;
    AttentionShape shape;
    int64_t padded, range, ranges;
    bool bf16;
    /* Scratch: dot [H,Tq]; query_sums [range][H,Tq,padded]; key_sums, value_sums [H,Tk,padded]. */
    float *dot, *query_sums, *key_sums, *value_sums;
} Backward;

/* Blocks in the thread's workspace. */
typedef struct Blocks {
    float *keys, *queries, *dout; /* [BLOCK, padded] */
    float *keys_transposed;       /* [E, BLOCK] */
    float *values_transposed;     /* [E, BLOCK] */
    float *weights, *gradients;   /* [BLOCK queries, BLOCK keys] */
} Blocks;

static Blocks place_blocks(float *workspace) {
    enum { WIDE = BLOCK * MAX_HEAD_DIMENSION };
    return (Blocks){.keys = workspace,
                    .queries = workspace + WIDE,
                    .dout = workspace + 2 * WIDE,
                    .keys_transposed = workspace + 3 * WIDE,
                    .values_transposed = workspace + 4 * WIDE,
                    .weights = workspace + 5 * WIDE,
                    .gradients = workspace + 5 * WIDE + BLOCK * BLOCK};
}

ALWAYS_INLINE float row_dot(bool bf16, const void *x, const void *y, int64_t width) {
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t e = 0; e < width; ++e) sum += element_load(bf16, x, e) * element_load(bf16, y, e);
    return sum;
}

static void compute_dots(Device *device, const Backward *b) {
    int64_t heads = b->shape.query_heads, width = b->shape.head_dimension;
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t t = 0; t < b->queries->tokens; ++t)
        for (int64_t h = 0; h < heads; ++h) {
            int64_t at = (t * heads + h) * width;
            b->dot[h * b->queries->tokens + t] =
                BY_STORAGE(b->bf16, row_dot, element_at(b->bf16, b->dout.data, at), element_at(b->bf16, b->out.data, at), width);
        }
}

/* scores -> weights in place, dP -> dS in place. Keys after the query and columns beyond `keys` weigh nothing: when causal,
 * query i of the block sees its keys up to number i - offset. */
static void score_gradients(const Backward *b, Blocks *blocks, const float *lse, const float *dot, int64_t queries, int64_t keys,
                            int64_t offset) {
    float scale = b->shape.scale;
    for (int64_t i = 0; i < queries; ++i) {
        int64_t visible = b->shape.causal && i - offset + 1 < keys ? i - offset + 1 : keys;
        if (visible < 0) visible = 0;
        float *restrict p = blocks->weights + i * BLOCK, *restrict d = blocks->gradients + i * BLOCK;
        float row_lse = lse[i], row_dot_value = dot[i];
#pragma omp simd
        for (int64_t j = 0; j < BLOCK; ++j) {
            float weight = j < visible ? exp_fast(p[j] * scale - row_lse) : 0.0f;
            p[j] = weight;
            d[j] = j < visible ? weight * (d[j] - row_dot_value) * scale : 0.0f;
        }
    }
}

typedef struct KeyBlock {
    int64_t head, begin, keys;
    int64_t diagonal;             /* the query, as a row of the batch, from which on the block's first key is seen */
    float *key_sums, *value_sums; /* [keys, padded] of scratch */
    float *query_sums;            /* [Tq, padded] of this head and range */
    bool first_of_range;
} KeyBlock;

static void query_block(const Backward *b, Blocks *blocks, const KeyBlock *key, int64_t begin, int64_t queries, bool first) {
    int64_t width = b->shape.head_dimension, padded = b->padded, stride = b->shape.query_heads * width;
    int64_t at = begin * stride + key->head * width, row = key->head * b->queries->tokens + begin;
    pack_rows(b->bf16, blocks->queries, element_at(b->bf16, b->q.data, at), stride, queries, width, padded);
    pack_rows(b->bf16, blocks->dout, element_at(b->bf16, b->dout.data, at), stride, queries, width, padded);
    block_gemm(false, queries, BLOCK, width, blocks->queries, padded, 1, blocks->keys_transposed, BLOCK, blocks->weights, BLOCK);
    block_gemm(false, queries, BLOCK, width, blocks->dout, padded, 1, blocks->values_transposed, BLOCK, blocks->gradients, BLOCK);
    score_gradients(b, blocks, (const float *)b->lse.data + row, b->dot + row, queries, key->keys, key->diagonal - begin);
    block_gemm(!first, key->keys, padded, queries, blocks->weights, 1, BLOCK, blocks->dout, padded, key->value_sums, padded);
    block_gemm(!first, key->keys, padded, queries, blocks->gradients, 1, BLOCK, blocks->queries, padded, key->key_sums, padded);
    block_gemm(!key->first_of_range, queries, padded, key->keys, blocks->gradients, BLOCK, 1, blocks->keys, padded,
               key->query_sums + begin * padded, padded);
}

/* One block of keys against every block of queries that sees it. */
static void key_block(const Backward *b, Blocks *blocks, Part part, KeyBlock *key) {
    int64_t width = b->shape.head_dimension, padded = b->padded, stride = b->shape.key_heads * width;
    int64_t key_head = key->head / (b->shape.query_heads / b->shape.key_heads), at = key->begin * stride + key_head * width;
    pack_rows(b->bf16, blocks->keys, element_at(b->bf16, b->v.data, at), stride, key->keys, width, padded);
    transpose_block(blocks->values_transposed, blocks->keys, key->keys, width, padded);
    pack_rows(b->bf16, blocks->keys, element_at(b->bf16, b->k.data, at), stride, key->keys, width, padded);
    transpose_block(blocks->keys_transposed, blocks->keys, key->keys, width, padded);
    key->key_sums = b->key_sums + (key->head * b->keys->tokens + key->begin) * padded;
    key->value_sums = b->value_sums + (key->head * b->keys->tokens + key->begin) * padded;
    int64_t queries_begin = b->queries->host_offsets[part.sequence], end = b->queries->host_offsets[part.sequence + 1];
    key->diagonal = queries_begin + key->begin - part.sequence_begin - causal_shift(b->queries, b->keys, part.sequence);
    int64_t first = queries_begin;
    if (b->shape.causal && key->diagonal > first) first += (key->diagonal - first) / BLOCK * BLOCK;
    for (int64_t begin = first; begin < end; begin += BLOCK)
        query_block(b, blocks, key, begin, end - begin < BLOCK ? end - begin : BLOCK, begin == first);
    if (first < end) return;
    memset(key->key_sums, 0, (size_t)(key->keys * padded) * sizeof *key->key_sums); /* keys without queries */
    memset(key->value_sums, 0, (size_t)(key->keys * padded) * sizeof *key->value_sums);
}

static void key_range(const Backward *b, Blocks *blocks, Part part, int64_t head) {
    int64_t number = (part.begin - part.sequence_begin) / b->range;
    float *query_sums = b->query_sums + (number * b->shape.query_heads + head) * b->queries->tokens * b->padded;
    for (int64_t begin = part.begin; begin < part.end; begin += BLOCK) {
        KeyBlock key = {.head = head,
                        .begin = begin,
                        .keys = part.end - begin < BLOCK ? part.end - begin : BLOCK,
                        .query_sums = query_sums,
                        .first_of_range = begin == part.begin};
        key_block(b, blocks, part, &key);
    }
}

ALWAYS_INLINE void store_row(bool bf16, void *to, const float *from, int64_t width) {
#pragma omp simd
    for (int64_t e = 0; e < width; ++e) element_store(bf16, to, e, from[e]);
}

/* to[width] = sum of `count` rows that lie `stride` apart. */
static void store_sum(bool bf16, void *to, const float *from, int64_t count, int64_t stride, int64_t width) {
    float sum[MAX_HEAD_DIMENSION] = {0};
    if (count > 0) memcpy(sum, from, (size_t)width * sizeof *sum);
    for (int64_t i = 1; i < count; ++i) {
        from += stride;
#pragma omp simd
        for (int64_t e = 0; e < width; ++e) sum[e] += from[e];
    }
    BY_STORAGE(bf16, store_row, to, sum, width);
}

static void reduce_query(const Backward *b, int64_t t, int64_t visible_ranges) {
    int64_t heads = b->shape.query_heads, tokens = b->queries->tokens, width = b->shape.head_dimension;
    for (int64_t h = 0; h < heads; ++h)
        store_sum(b->bf16, element_at_mutable(b->bf16, b->dq.data, (t * heads + h) * width),
                  b->query_sums + (h * tokens + t) * b->padded, visible_ranges, heads * tokens * b->padded, width);
}

static void reduce_key(const Backward *b, int64_t t) {
    int64_t key_heads = b->shape.key_heads, group = b->shape.query_heads / key_heads, tokens = b->keys->tokens;
    int64_t width = b->shape.head_dimension, stride = tokens * b->padded;
    for (int64_t g = 0; g < key_heads; ++g) {
        int64_t at = (t * key_heads + g) * width, from = (g * group * tokens + t) * b->padded;
        store_sum(b->bf16, element_at_mutable(b->bf16, b->dk.data, at), b->key_sums + from, group, stride, width);
        store_sum(b->bf16, element_at_mutable(b->bf16, b->dv.data, at), b->value_sums + from, group, stride, width);
    }
}

/* Ranges of keys in which query t has a partial sum: a range is visible to its own diagonal block of queries on. */
static int64_t visible_ranges(const Backward *b, Part part, int64_t t) {
    int64_t keys = b->keys->host_offsets[part.sequence + 1] - b->keys->host_offsets[part.sequence];
    if (b->shape.causal) keys += t + 1 - part.sequence_end;
    return keys > 0 ? (keys + b->range - 1) / b->range : 0;
}

static void reduce(Device *device, const Backward *b) {
    int64_t parts = count_parts(b->queries, BLOCK);
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t i = 0; i < parts; ++i) {
        Part part = find_part(b->queries, BLOCK, i);
        for (int64_t t = part.begin; t < part.end; ++t) reduce_query(b, t, visible_ranges(b, part, t));
    }
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t t = 0; t < b->keys->tokens; ++t) reduce_key(b, t);
}

Status cpu_cross_attention_backward(Device *device, Arena *scratch, Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor out,
                                    Tensor lse, Tensor q, Tensor k, Tensor v, const SequenceLayout *queries,
                                    const SequenceLayout *keys, AttentionShape shape) {
    if (shape.head_dimension > MAX_HEAD_DIMENSION)
        FAIL("attention takes head dimensions up to %d, not %lld", MAX_HEAD_DIMENSION, (long long)shape.head_dimension);
    if (queries->tokens == 0 && keys->tokens == 0) return STATUS_OK;
    void *memory;
    TRY(arena_allocate(scratch, scratch_cross_attention_backward(device, queries, keys, shape), ARENA_HIGH, &memory));
    Backward b = {.dq = dq,
                  .dk = dk,
                  .dv = dv,
                  .dout = dout,
                  .out = out,
                  .lse = lse,
                  .q = q,
                  .k = k,
                  .v = v,
                  .queries = queries,
                  .keys = keys,
                  .shape = shape,
                  .padded = attention_padded_dimension(shape.head_dimension),
                  .range = attention_key_range(keys->longest),
                  .ranges = attention_key_ranges(keys->longest),
                  .bf16 = q.dtype == DTYPE_BF16,
                  .dot = memory};
    int64_t head_rows = shape.query_heads * queries->tokens;
    b.query_sums = b.dot + head_rows;
    b.key_sums = b.query_sums + b.ranges * head_rows * b.padded;
    b.value_sums = b.key_sums + shape.query_heads * keys->tokens * b.padded;
    compute_dots(device, &b);
    int64_t tasks = count_parts(keys, b.range) * shape.query_heads;
#pragma omp parallel for schedule(dynamic, 1) num_threads(device->threads)
    for (int64_t task = 0; task < tasks; ++task) {
        Blocks blocks = place_blocks(cpu_workspace(device, omp_get_thread_num()));
        key_range(&b, &blocks, find_part(keys, b.range, task / shape.query_heads), task % shape.query_heads);
    }
    reduce(device, &b);
    arena_release(scratch, memory);
    return STATUS_OK;
}

Status cpu_attention_backward(Device *device, Arena *scratch, Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor out,
                              Tensor lse, Tensor q, Tensor k, Tensor v, const SequenceLayout *layout, AttentionShape shape) {
    return cpu_cross_attention_backward(device, scratch, dq, dk, dv, dout, out, lse, q, k, v, layout, layout, shape);
}
