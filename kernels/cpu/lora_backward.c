/* dA += Q^T dropout(x) and dx (+)= dropout(Q A), cut into blocks of channels that one thread computes alone, from the first token
 * to the last: the bits drawn for a block of x serve both, and dA is added in one order. */
#include "kernels/cpu/lora.h"

#include <omp.h>

enum { CHANNELS = 128, FEW_CHANNELS = 64, ENOUGH_BLOCKS = 24, TOKENS = 256, FEW_TOKENS = 64, LARGE_RANK = 1024 };

typedef struct Backward {
    LowRank low_rank;
    float *da;
    void *dx; /* NULL: not wanted */
    const void *q;
    bool accumulate;
    int64_t tokens, channels;         /* of a block */
    const Gemm *gradient[2][2];       /* da[R,channels] of a block of tokens: last tokens?, last channels? */
    const Gemm *input_gradient[2][2]; /* dx[tokens,channels] */
} Backward;

/* The workspace of a thread: sums of da, those of one block of tokens, dx, and the staged operands. */
typedef struct Workspace {
    float *sum, *part, *dx, *x, *q, *a;
    uint16_t *pieces;
} Workspace;

static Workspace workspace_of(const Backward *b, int thread) {
    int64_t rank = (b->low_rank.rank + 15) / 16 * 16, tokens = TOKENS, channels = b->channels;
    if (rank > LARGE_RANK) tokens = FEW_TOKENS;
    Workspace w = {.sum = cpu_workspace(b->low_rank.device, thread)};
    w.part = w.sum + rank * channels;
    w.a = w.part + rank * channels;
    w.q = w.a + rank * channels;
    w.dx = w.q + tokens * rank;
    w.x = w.dx + tokens * CHANNELS;
    w.pieces = (uint16_t *)(w.x + tokens * CHANNELS);
    return w;
}

/* One adapter's Q is read where it lies. */
static bool stages_q(const Backward *b) { return b->low_rank.stack.count > 1 || b->low_rank.widen; }

static Status prepare(Backward *b, bool *all) {
    const LowRank *l = &b->low_rank;
    *all = true;
    for (int i = 0; i < 4; ++i) {
        bool last_t = i & 1, last_c = i & 2;
        int64_t tokens = last_t ? l->tokens - (l->tokens - 1) / b->tokens * b->tokens : b->tokens;
        int64_t channels = last_c ? l->width - (l->width - 1) / b->channels * b->channels : b->channels;
        GemmShape gradient = {.m = l->rank, .n = channels, .k = tokens, .lda = l->rank, .ldb = channels, .transpose_a = true};
        GemmShape input = {.m = tokens, .n = channels, .k = l->rank, .lda = l->rank, .ldb = channels};
        gradient.bf16 = input.bf16 = l->bf16 && !l->widen;
        TRY(gemm_prepare(l->cache, gradient, &b->gradient[last_t][last_c]));
        TRY(gemm_prepare(l->cache, input, &b->input_gradient[last_t][last_c]));
        *all = *all && b->gradient[last_t][last_c] && b->input_gradient[last_t][last_c];
    }
    return STATUS_OK;
}

/* The rows of Q of a block of tokens, those of all adapters side by side. */
static const void *stage_q(const Backward *b, float *to, int64_t first, int64_t tokens) {
    const LowRank *l = &b->low_rank;
    if (!stages_q(b)) return element_at(l->bf16, b->q, first * l->rank);
    bool to_bf16 = l->bf16 && !l->widen;
    for (int64_t i = 0, begin = 0; i < l->stack.count; begin += l->stack.ranks[i++]) {
        int64_t own = l->stack.ranks[i];
        const void *q = element_at(l->bf16, b->q, l->tokens * begin + first * own);
        for (int64_t t = 0; t < tokens; ++t)
            stage_block(l, element_at_mutable(to_bf16, to, t * l->rank + begin), element_at(l->bf16, q, t * own), own, 1, own);
    }
    return to;
}

static void stage_x(const Backward *b, const Workspace *w, int64_t first, int64_t tokens, int64_t channel, int64_t channels) {
    const LowRank *l = &b->low_rank;
    bool to_bf16 = l->bf16 && !l->widen;
    const void *from = element_at(l->bf16, l->x, first * l->width + channel);
    if (l->key.threshold == 0) {
        stage_block(l, w->x, from, l->width, tokens, channels);
        return;
    }
    for (int64_t t = 0; t < tokens; ++t) {
        uint16_t *pieces = w->pieces + t * CHANNELS;
        mask_channels(pieces, l->key, channel, channels, (uint32_t)l->layout->positions[first + t],
                      (uint32_t)l->layout->sample_of_token[first + t]);
        keep_elements(l, element_at_mutable(to_bf16, w->x, t * channels), element_at(l->bf16, from, t * l->width), pieces,
                      channels);
    }
}

ALWAYS_INLINE void add_row(bool bf16, void *dx, bool accumulate, const float *sum, const uint16_t *pieces, uint32_t threshold,
                           float scale, int64_t count) {
    if (accumulate) {
#pragma omp simd
        for (int64_t i = 0; i < count; ++i)
            element_store(bf16, dx, i, element_load(bf16, dx, i) + (pieces[i] >= threshold ? scale * sum[i] : 0.0f));
    } else {
#pragma omp simd
        for (int64_t i = 0; i < count; ++i) element_store(bf16, dx, i, pieces[i] >= threshold ? scale * sum[i] : 0.0f);
    }
}

static void store_input_gradient(const Backward *b, const Workspace *w, int64_t first, int64_t tokens, int64_t channel,
                                 int64_t channels) {
    const LowRank *l = &b->low_rank;
    static const uint16_t all[CHANNELS] = {0}; /* nothing is below a threshold of zero */
    for (int64_t t = 0; t < tokens; ++t)
        BY_STORAGE(l->bf16, add_row, element_at_mutable(l->bf16, b->dx, (first + t) * l->width + channel), b->accumulate,
                   w->dx + t * channels, l->key.threshold ? w->pieces + t * CHANNELS : all, l->key.threshold,
                   l->key.threshold ? l->key.scale : 1.0f, channels);
}

static int block_of_tokens(const Backward *b, const Workspace *w, int thread, int64_t first, int64_t channel, int64_t channels) {
    const LowRank *l = &b->low_rank;
    int64_t tokens = minimum_of(b->tokens, l->tokens - first);
    bool last_t = first + tokens == l->tokens, last_c = channel + channels == l->width;
    const void *q = stage_q(b, w->q, first, tokens);
    stage_x(b, w, first, tokens, channel, channels);
    int error = gemm_run(l->cache, b->gradient[last_t][last_c], thread, q, w->x, first ? w->part : w->sum);
    if (error) return error;
    if (first) {
#pragma omp simd
        for (int64_t i = 0; i < l->rank * channels; ++i) w->sum[i] += w->part[i];
    }
    if (!b->dx) return 0;
    error = gemm_run(l->cache, b->input_gradient[last_t][last_c], thread, q, w->a, w->dx);
    if (!error) store_input_gradient(b, w, first, tokens, channel, channels);
    return error;
}

static int block_of_channels(const Backward *b, int thread, int64_t channel) {
    const LowRank *l = &b->low_rank;
    Workspace w = workspace_of(b, thread);
    int64_t channels = minimum_of(b->channels, l->width - channel);
    if (b->dx) stage_block(l, w.a, element_at(l->bf16, l->a, channel), l->width, l->rank, channels);
    for (int64_t first = 0; first < l->tokens; first += b->tokens) {
        int error = block_of_tokens(b, &w, thread, first, channel, channels);
        if (error) return error;
    }
    float scale = l->key.threshold ? l->key.scale : 1.0f;
    for (int64_t r = 0; r < l->rank; ++r) {
        float *da = b->da + r * l->width + channel;
        const float *sum = w.sum + r * channels;
#pragma omp simd
        for (int64_t i = 0; i < channels; ++i) da[i] += scale * sum[i];
    }
    return 0;
}

Status cpu_lora_down_backward(Device *device, Arena *scratch, Tensor da, Tensor dx, bool accumulate, Tensor q, Tensor x, Tensor a,
                              LoraStack stack, const SequenceLayout *layout, Dropout dropout) {
    if (stack.count == 1 && dropout.p == 0) {
        Tensor own = tensor_2d(q.data, q.dtype, x.shape[0], stack.ranks[0]);
        TRY(cpu_matmul(device, scratch, da, own, true, x, false, tensor_absent(), 1.0f, 1.0f));
        return dx.data ? cpu_matmul(device, scratch, dx, own, false, a, false, tensor_absent(), 1.0f, accumulate ? 1.0f : 0.0f)
                       : STATUS_OK;
    }
    Backward b = {.da = da.data, .dx = dx.data, .q = q.data, .accumulate = accumulate};
    LowRank *l = &b.low_rank;
    TRY(low_rank_open(l, device, x, a, stack, layout, dropout));
    if (l->tokens == 0 || l->rank == 0) return STATUS_OK;
    bool narrow = l->width < ENOUGH_BLOCKS * CHANNELS || l->rank > LARGE_RANK;
    b.channels = minimum_of(l->width, narrow ? FEW_CHANNELS : CHANNELS);
    b.tokens = minimum_of(l->tokens, l->rank > LARGE_RANK ? FEW_TOKENS : TOKENS);
    matmul_cache_trim(l->cache);
    bool all;
    TRY(prepare(&b, &all));
    if (!all) { /* no fast bf16 product on this CPU */
        l->widen = true;
        TRY(prepare(&b, &all));
    }
    int failed = 0;
#pragma omp parallel for schedule(dynamic, 1) num_threads(device->threads)
    for (int64_t channel = 0; channel < l->width; channel += b.channels) {
        int error = block_of_channels(&b, omp_get_thread_num(), channel);
        if (error) {
#pragma omp atomic write
            failed = error;
        }
    }
    if (failed) FAIL("oneDNN error %d while running lora_down_backward", failed);
    return STATUS_OK;
}
