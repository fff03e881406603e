/* Mean squared cosine between the rows of a sequence. Row i takes its dot products with all others twice, once for its share of
 * the loss and of the gradient together: K^2 D operations for K rows need no K x K matrix. */
#include "kernels/cpu/context.h"
#include "kernels/cpu/cosine.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/segments.h"
#include "kernels/scratch.h"

#include <omp.h>

typedef struct Diversity {
    Tensor dz, z;
    bool accumulate, bf16;
    float scale;
    float *inverse, *parts; /* scratch [T]: one over the norm; sum of squared cosines with the others */
} Diversity;

/* Sequence begin .. end-1 holds row t. gradient: workspace [D]. */
static void diversity_row(const Diversity *d, int64_t t, int64_t begin, int64_t end, float *gradient) {
    int64_t width = d->z.shape[1], rows = end - begin;
    const void *own = element_at(d->bf16, d->z.data, t * width);
    float sum = 0.0f;
    memset(gradient, 0, (size_t)width * sizeof *gradient);
    for (int64_t j = begin; j < end; ++j) {
        if (j == t) continue;
        const void *other = element_at(d->bf16, d->z.data, j * width);
        float cosine = BY_STORAGE(d->bf16, row_dot, own, other, width) * d->inverse[t] * d->inverse[j];
        sum += cosine * cosine;
        if (d->dz.data) BY_STORAGE(d->bf16, add_weighted_row, gradient, other, cosine * d->inverse[j], width);
    }
    d->parts[t] = sum;
    float factor = rows > 1 ? 4.0f * d->scale / ((float)rows * (float)(rows - 1)) : 0.0f; /* a pair counts twice, squared */
    if (d->dz.data)
        BY_STORAGE(d->bf16, store_through_norm, element_at_mutable(d->bf16, d->dz.data, t * width), d->accumulate, gradient, own,
                   d->inverse[t], factor, width);
}

static void sum_parts(const Diversity *d, float *loss, const SequenceLayout *layout) {
    for (int64_t s = 0; s < layout->sequences; ++s) {
        int64_t begin = layout->host_offsets[s], end = layout->host_offsets[s + 1], rows = end - begin;
        double sum = 0.0;
        for (int64_t t = begin; t < end; ++t) sum += (double)d->parts[t];
        loss[s] = rows > 1 ? (float)(sum / ((double)rows * (double)(rows - 1))) : 0.0f;
    }
}

Status cpu_diversity(Device *device, Arena *scratch, Tensor loss, Tensor dz, bool accumulate, Tensor z,
                     const SequenceLayout *layout, float scale) {
    int64_t tokens = layout->tokens, width = z.shape[1];
    if ((size_t)width * sizeof(float) > WORKSPACE_BYTES)
        FAIL("diversity takes rows of up to %d elements, not %lld", WORKSPACE_BYTES / 4, (long long)width);
    Diversity d = {dz, z, accumulate, z.dtype == DTYPE_BF16, scale, NULL, NULL};
    void *memory = NULL;
    if (tokens) TRY(arena_allocate(scratch, scratch_diversity(z), ARENA_HIGH, &memory));
    d.inverse = memory;
    d.parts = d.inverse + tokens;
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t t = 0; t < tokens; ++t) d.inverse[t] = inverse_norm(d.bf16, element_at(d.bf16, z.data, t * width), width);
#pragma omp parallel for schedule(dynamic, 1) num_threads(device->threads)
    for (int64_t t = 0; t < tokens; ++t) {
        int64_t s = sequence_of_row(layout, t);
        diversity_row(&d, t, layout->host_offsets[s], layout->host_offsets[s + 1], cpu_workspace(device, omp_get_thread_num()));
    }
    sum_parts(&d, loss.data, layout);
    arena_release(scratch, memory);
    return STATUS_OK;
}
