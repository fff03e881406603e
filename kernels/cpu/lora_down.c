/* P = dropout(x) A^T, cut into blocks of tokens that one thread computes alone: it drops its rows of x into its workspace, where
 * the product reads them from the cache. The blocks follow from the shape only. */
#include "kernels/cpu/lora.h"

#include <omp.h>

enum { TOKENS = 64, RANKS = 64, CHANNELS = 8192, CHANNELS_WIDENED = 1024 };

typedef struct Down {
    LowRank low_rank;
    void *p;
    int64_t tokens, channels, ranks; /* of a block; channels = all of them when the product reads x where it lies */
    const Gemm *gemm[2][2][2];       /* last tokens?, last channels?, last ranks? */
} Down;

/* The workspace of a thread: sums of all blocks of ranks, one more block of them, and the staged operands. */
typedef struct Workspace {
    float *sum, *part, *x, *a;
} Workspace; /* at the most 0.8 MB and either 2 MB of x, or 256 kB each of x and a widened */

static Workspace workspace_of(const Down *d, int thread) {
    float *memory = cpu_workspace(d->low_rank.device, thread);
    int64_t blocks = (d->low_rank.rank + RANKS - 1) / RANKS;
    Workspace w = {.sum = memory, .part = memory + blocks * TOKENS * RANKS};
    w.x = w.part + TOKENS * RANKS;
    w.a = w.x + TOKENS * CHANNELS_WIDENED;
    return w;
}

static int64_t extent_of(int64_t total, int64_t step, bool last) { return last ? total - (total - 1) / step * step : step; }

static Status prepare(Down *d, bool *all) {
    const LowRank *l = &d->low_rank;
    *all = true;
    for (int i = 0; i < 8; ++i) {
        bool last_t = i & 1, last_k = i & 2, last_r = i & 4;
        GemmShape shape = {.m = extent_of(l->tokens, d->tokens, last_t),
                           .n = extent_of(l->rank, d->ranks, last_r),
                           .k = extent_of(l->width, d->channels, last_k),
                           .transpose_b = true,
                           .bf16 = l->bf16 && !l->widen};
        shape.lda = low_rank_direct(l) ? l->width : shape.k;
        shape.ldb = l->widen ? shape.k : l->width;
        TRY(gemm_prepare(l->cache, shape, &d->gemm[last_t][last_k][last_r]));
        *all = *all && d->gemm[last_t][last_k][last_r];
    }
    return STATUS_OK;
}

/* The rows of x of a block, dropped. */
static void stage_x(const Down *d, float *to, int64_t first, int64_t tokens, int64_t channel, int64_t channels) {
    const LowRank *l = &d->low_rank;
    bool to_bf16 = l->bf16 && !l->widen;
    const void *from = element_at(l->bf16, l->x, first * l->width + channel);
    if (l->key.threshold == 0) {
        stage_block(l, to, from, l->width, tokens, channels);
        return;
    }
    for (int64_t t = 0; t < tokens; ++t)
        for (int64_t c = 0; c < channels; c += SPAN) {
            uint16_t pieces[SPAN];
            mask_span(pieces, l->key, channel + c, (uint32_t)l->layout->positions[first + t],
                      (uint32_t)l->layout->sample_of_token[first + t]);
            keep_elements(l, element_at_mutable(to_bf16, to, t * channels + c), element_at(l->bf16, from, t * l->width + c),
                          pieces, minimum_of(SPAN, channels - c));
        }
}

ALWAYS_INLINE void store_row(bool bf16, void *p, const float *sum, float scale, int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) element_store(bf16, p, i, scale * sum[i]);
}

/* Columns first_rank .. of the sums go to the matrices of the adapters that they belong to. */
static void store_block(const Down *d, const float *sum, int64_t first, int64_t tokens, int64_t first_rank, int64_t ranks) {
    const LowRank *l = &d->low_rank;
    for (int64_t i = 0, begin = 0; i < l->stack.count; begin += l->stack.ranks[i++]) {
        int64_t own = l->stack.ranks[i], from = begin > first_rank ? begin : first_rank;
        int64_t to = minimum_of(begin + own, first_rank + ranks);
        for (int64_t t = 0; t < tokens && from < to; ++t)
            BY_STORAGE(l->bf16, store_row,
                       element_at_mutable(l->bf16, d->p, l->tokens * begin + (first + t) * own + from - begin),
                       sum + t * ranks + from - first_rank, l->key.threshold ? l->key.scale : 1.0f, to - from);
    }
}

static int add_channels(const Down *d, const Workspace *w, int thread, int64_t first, int64_t tokens, int64_t channel) {
    const LowRank *l = &d->low_rank;
    int64_t channels = minimum_of(d->channels, l->width - channel);
    const void *x = element_at(l->bf16, l->x, first * l->width + channel);
    if (!low_rank_direct(l)) {
        stage_x(d, w->x, first, tokens, channel, channels);
        x = w->x;
    }
    for (int64_t r = 0; r < l->rank; r += d->ranks) {
        int64_t ranks = minimum_of(d->ranks, l->rank - r);
        float *sum = w->sum + r * TOKENS;
        const void *a = element_at(l->bf16, l->a, r * l->width + channel);
        if (l->widen) {
            stage_block(l, w->a, a, l->width, ranks, channels);
            a = w->a;
        }
        const Gemm *gemm = d->gemm[first + tokens == l->tokens][channel + channels == l->width][r + ranks == l->rank];
        int error = gemm_run(l->cache, gemm, thread, x, a, channel ? w->part : sum);
        if (error) return error;
        if (!channel) continue;
#pragma omp simd
        for (int64_t i = 0; i < tokens * ranks; ++i) sum[i] += w->part[i];
    }
    return 0;
}

static int block_of_tokens(const Down *d, int thread, int64_t first) {
    const LowRank *l = &d->low_rank;
    Workspace w = workspace_of(d, thread);
    int64_t tokens = minimum_of(d->tokens, l->tokens - first);
    for (int64_t channel = 0; channel < l->width; channel += d->channels) {
        int error = add_channels(d, &w, thread, first, tokens, channel);
        if (error) return error;
    }
    for (int64_t r = 0; r < l->rank; r += d->ranks)
        store_block(d, w.sum + r * TOKENS, first, tokens, r, minimum_of(d->ranks, l->rank - r));
    return 0;
}

Status cpu_lora_down(Device *device, Tensor p, Tensor x, Tensor a, LoraStack stack, const SequenceLayout *layout,
                     Dropout dropout) {
    if (stack.count == 1 && dropout.p == 0)
        return cpu_matmul(device, NULL, tensor_2d(p.data, p.dtype, x.shape[0], stack.ranks[0]), x, false, a, true,
                          tensor_absent(), 1.0f, 0.0f);
    Down d = {.p = p.data};
    LowRank *l = &d.low_rank;
    TRY(low_rank_open(l, device, x, a, stack, layout, dropout));
    if (l->tokens == 0 || l->rank == 0) return STATUS_OK;
    d.tokens = minimum_of(l->tokens, TOKENS);
    d.ranks = minimum_of(l->rank, RANKS);
    matmul_cache_trim(l->cache);
    bool all;
    d.channels = low_rank_direct(l) ? l->width : minimum_of(l->width, CHANNELS);
    TRY(prepare(&d, &all));
    if (!all) { /* no fast bf16 product on this CPU */
        l->widen = true;
        d.channels = minimum_of(l->width, CHANNELS_WIDENED);
        TRY(prepare(&d, &all));
    }
    int failed = 0;
#pragma omp parallel for schedule(dynamic, 1) num_threads(device->threads) if (l->tokens > d.tokens)
    for (int64_t first = 0; first < l->tokens; first += d.tokens) {
        int error = block_of_tokens(&d, omp_get_thread_num(), first);
        if (error) {
#pragma omp atomic write
            failed = error;
        }
    }
    if (failed) FAIL("oneDNN error %d while running lora_down", failed);
    return STATUS_OK;
}
