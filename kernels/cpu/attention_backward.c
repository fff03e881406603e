/* Attention backward. With P = softmax(S), D = rowsum(dout * out):
 *   dV = P^T dout;  dP = dout V^T;  dS = P * (dP - D) * scale;  dQ = dS K;  dK = dS^T Q.
 *
 * A task is one range of keys of one sequence for one query head. It alone writes its dk and dv (per query head) and its
 * partial dq; a last pass adds query heads of a group and key ranges in order. Ranges depend on the longest sequence only,
 * so the bits do not depend on the number of threads. */
#include "kernels/cpu/attention_blocks.h"
#include "kernels/cpu/context.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/scratch.h"

#include <omp.h>

typedef struct Backward {
    Tensor dq, dk, dv, dout, out, lse, q, k, v;
    AttentionShape shape;
    int64_t tokens, padded, range, ranges;
    bool bf16;
    /* Scratch: dot [H,T]; query_sums [range][H,T,padded]; key_sums, value_sums [H,T,padded]. */
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
    for (int64_t t = 0; t < b->tokens; ++t)
        for (int64_t h = 0; h < heads; ++h) {
            int64_t at = (t * heads + h) * width;
            b->dot[h * b->tokens + t] =
                BY_STORAGE(b->bf16, row_dot, element_at(b->bf16, b->dout.data, at), element_at(b->bf16, b->out.data, at), width);
        }
}

/* scores -> weights in place, dP -> dS in place. Keys after the query and columns beyond `keys` weigh nothing.
 * `offset` = first key - first query, when causal. */
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
    float *key_sums, *value_sums; /* [keys, padded] of scratch */
    float *query_sums;            /* [T, padded] of this head and range */
    bool first_of_range;
} KeyBlock;

static void query_block(const Backward *b, Blocks *blocks, const KeyBlock *key, int64_t begin, int64_t queries, bool first) {
    int64_t width = b->shape.head_dimension, padded = b->padded, stride = b->shape.query_heads * width;
    int64_t at = begin * stride + key->head * width, row = key->head * b->tokens + begin;
    pack_rows(b->bf16, blocks->queries, element_at(b->bf16, b->q.data, at), stride, queries, width, padded);
    pack_rows(b->bf16, blocks->dout, element_at(b->bf16, b->dout.data, at), stride, queries, width, padded);
    block_gemm(false, queries, BLOCK, width, blocks->queries, padded, 1, blocks->keys_transposed, BLOCK, blocks->weights, BLOCK);
    block_gemm(false, queries, BLOCK, width, blocks->dout, padded, 1, blocks->values_transposed, BLOCK, blocks->gradients, BLOCK);
    score_gradients(b, blocks, (const float *)b->lse.data + row, b->dot + row, queries, key->keys, key->begin - begin);
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
    key->key_sums = b->key_sums + (key->head * b->tokens + key->begin) * padded;
    key->value_sums = b->value_sums + (key->head * b->tokens + key->begin) * padded;
    /* Blocks of keys and of queries start at the same rows, so a causal block begins on the diagonal. */
    int64_t first = b->shape.causal ? key->begin : part.sequence_begin;
    for (int64_t begin = first; begin < part.sequence_end; begin += BLOCK) {
        int64_t queries = part.sequence_end - begin < BLOCK ? part.sequence_end - begin : BLOCK;
        query_block(b, blocks, key, begin, queries, begin == first);
    }
}

static void key_range(const Backward *b, Blocks *blocks, Part part, int64_t head) {
    int64_t number = (part.begin - part.sequence_begin) / b->range;
    float *query_sums = b->query_sums + (number * b->shape.query_heads + head) * b->tokens * b->padded;
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
    float sum[MAX_HEAD_DIMENSION];
    memcpy(sum, from, (size_t)width * sizeof *sum);
    for (int64_t i = 1; i < count; ++i) {
        from += stride;
#pragma omp simd
        for (int64_t e = 0; e < width; ++e) sum[e] += from[e];
    }
    BY_STORAGE(bf16, store_row, to, sum, width);
}

static void reduce_token(const Backward *b, int64_t t, int64_t visible_ranges) {
    int64_t heads = b->shape.query_heads, key_heads = b->shape.key_heads, group = heads / key_heads, padded = b->padded;
    int64_t width = b->shape.head_dimension;
    for (int64_t h = 0; h < heads; ++h)
        store_sum(b->bf16, element_at_mutable(b->bf16, b->dq.data, (t * heads + h) * width),
                  b->query_sums + (h * b->tokens + t) * padded, visible_ranges, heads * b->tokens * padded, width);
    for (int64_t g = 0; g < key_heads; ++g) {
        int64_t at = (t * key_heads + g) * width, from = (g * group * b->tokens + t) * padded, stride = b->tokens * padded;
        store_sum(b->bf16, element_at_mutable(b->bf16, b->dk.data, at), b->key_sums + from, group, stride, width);
        store_sum(b->bf16, element_at_mutable(b->bf16, b->dv.data, at), b->value_sums + from, group, stride, width);
    }
}

static void reduce(Device *device, const Backward *b, const SequenceLayout *layout) {
    int64_t parts = count_parts(layout, BLOCK);
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t i = 0; i < parts; ++i) {
        Part part = find_part(layout, BLOCK, i);
        int64_t all = (part.sequence_end - part.sequence_begin + b->range - 1) / b->range;
        for (int64_t t = part.begin; t < part.end; ++t)
            /* A range is visible to its own block of queries on; earlier queries have no partial sum in it. */
            reduce_token(b, t, b->shape.causal ? (t - part.sequence_begin) / b->range + 1 : all);
    }
}

Status cpu_attention_backward(Device *device, Arena *scratch, Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor out,
                              Tensor lse, Tensor q, Tensor k, Tensor v, const SequenceLayout *layout, AttentionShape shape) {
    if (shape.head_dimension > MAX_HEAD_DIMENSION)
        FAIL("attention takes head dimensions up to %d, not %lld", MAX_HEAD_DIMENSION, (long long)shape.head_dimension);
    if (layout->tokens == 0) return STATUS_OK;
    void *memory;
    TRY(arena_allocate(scratch, scratch_attention_backward(device, q.dtype, layout, shape), ARENA_HIGH, &memory));
    Backward b = {dq,
                  dk,
                  dv,
                  dout,
                  out,
                  lse,
                  q,
                  k,
                  v,
                  shape,
                  layout->tokens,
                  attention_padded_dimension(shape.head_dimension),
                  attention_key_range(layout->longest),
                  attention_key_ranges(layout->longest),
                  q.dtype == DTYPE_BF16,
                  memory,
                  NULL,
                  NULL,
                  NULL};
    int64_t head_rows = shape.query_heads * layout->tokens;
    b.query_sums = b.dot + head_rows;
    b.key_sums = b.query_sums + b.ranges * head_rows * b.padded;
    b.value_sums = b.key_sums + head_rows * b.padded;
    compute_dots(device, &b);
    int64_t tasks = count_parts(layout, b.range) * shape.query_heads;
#pragma omp parallel for schedule(dynamic, 1) num_threads(device->threads)
    for (int64_t task = 0; task < tasks; ++task) {
        Blocks blocks = place_blocks(cpu_workspace(device, omp_get_thread_num()));
        key_range(&b, &blocks, find_part(layout, b.range, task / shape.query_heads), task % shape.query_heads);
    }
    reduce(device, &b, layout);
    arena_release(scratch, memory);
    return STATUS_OK;
}
