#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/mask.h"

/* Selection, not multiplication by a mask: a dropped infinity is zero. */
ALWAYS_INLINE void apply(bool bf16, void *y, bool accumulate, const void *x, const uint16_t *pieces, MaskKey key, int64_t count) {
    if (accumulate) {
#pragma omp simd
        for (int64_t i = 0; i < count; ++i) {
            float value = pieces[i] >= key.threshold ? element_load(bf16, x, i) * key.scale : 0.0f;
            element_store(bf16, y, i, element_load(bf16, y, i) + value);
        }
    } else {
#pragma omp simd
        for (int64_t i = 0; i < count; ++i)
            element_store(bf16, y, i, pieces[i] >= key.threshold ? element_load(bf16, x, i) * key.scale : 0.0f);
    }
}

static void dropout_row(bool bf16, void *y, bool accumulate, const void *x, int64_t width, MaskKey key, uint32_t position,
                        uint32_t sample) {
    for (int64_t c = 0; c < width; c += SPAN) {
        uint16_t pieces[SPAN];
        mask_span(pieces, key, c, position, sample);
        int64_t count = width - c < SPAN ? width - c : SPAN;
        BY_STORAGE(bf16, apply, element_at_mutable(bf16, y, c), accumulate, element_at(bf16, x, c), pieces, key, count);
    }
}

Status cpu_dropout(Device *device, Tensor y, bool accumulate, Tensor x, const SequenceLayout *layout, Dropout dropout) {
    int64_t tokens = x.shape[0], width = x.shape[1];
    bool bf16 = x.dtype == DTYPE_BF16;
    MaskKey key = mask_key(dropout);
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t t = 0; t < tokens; ++t)
        dropout_row(bf16, element_at_mutable(bf16, y.data, t * width), accumulate, element_at(bf16, x.data, t * width), width,
                    key, (uint32_t)layout->positions[t], (uint32_t)layout->sample_of_token[t]);
    return STATUS_OK;
}
