#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/vector.h"

#include <math.h>

/* Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"). */
enum { PHILOX_ROUNDS = 10, CHANNELS_PER_CALL = 8 };

typedef struct MaskKey {
    uint32_t key0, key1, threshold;
    float scale;
} MaskKey;

/* Calls of a row handled together: one vector register of 32-bit words. */
enum { GROUP = LANES };

/* bits[g][w]: word w of the call for channel group `first + g`. */
ALWAYS_INLINE void philox_group(uint32_t bits[4][GROUP], MaskKey key, uint32_t first, uint32_t position, uint32_t sample,
                                uint32_t step) {
#pragma omp simd
    for (uint32_t g = 0; g < GROUP; ++g) {
        uint32_t c0 = first + g, c1 = position, c2 = sample, c3 = step, k0 = key.key0, k1 = key.key1;
        for (int round = 0; round < PHILOX_ROUNDS; ++round) {
            uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
            uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
            c1 = (uint32_t)p1;
            c3 = (uint32_t)p0;
            c0 = n0;
            c2 = n2;
            k0 += 0x9E3779B9u;
            k1 += 0xBB67AE85u;
        }
        bits[0][g] = c0;
        bits[1][g] = c1;
        bits[2][g] = c2;
        bits[3][g] = c3;
    }
}

/* Factor (0 or scale) of CHANNELS_PER_CALL * GROUP channels, in channel order. */
ALWAYS_INLINE void mask_factors(float *factors, uint32_t bits[4][GROUP], MaskKey key) {
    for (int w = 0; w < 4; ++w) {
#pragma omp simd
        for (int g = 0; g < GROUP; ++g) {
            factors[g * CHANNELS_PER_CALL + 2 * w] = (bits[w][g] & 0xffffu) >= key.threshold ? key.scale : 0.0f;
            factors[g * CHANNELS_PER_CALL + 2 * w + 1] = (bits[w][g] >> 16) >= key.threshold ? key.scale : 0.0f;
        }
    }
}

ALWAYS_INLINE void apply(bool bf16, void *y, bool accumulate, const void *x, const float *factors, int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
        /* Selection, not multiplication: a dropped infinity is zero. */
        float value = factors[i] != 0.0f ? element_load(bf16, x, i) * factors[i] : 0.0f;
        element_store(bf16, y, i, accumulate ? element_load(bf16, y, i) + value : value);
    }
}

static void dropout_row(bool bf16, void *y, bool accumulate, const void *x, int64_t width, MaskKey key, uint32_t position,
                        uint32_t sample, uint32_t step) {
    enum { SPAN = GROUP * CHANNELS_PER_CALL };
    for (int64_t c = 0; c < width; c += SPAN) {
        uint32_t bits[4][GROUP];
        float factors[SPAN];
        philox_group(bits, key, (uint32_t)(c / CHANNELS_PER_CALL), position, sample, step);
        mask_factors(factors, bits, key);
        int64_t count = width - c < SPAN ? width - c : SPAN;
        BY_STORAGE(bf16, apply, element_at_mutable(bf16, y, c), accumulate, element_at(bf16, x, c), factors, count);
    }
}

Status cpu_dropout(Device *device, Tensor y, bool accumulate, Tensor x, const SequenceLayout *layout, Dropout dropout) {
    int64_t tokens = x.shape[0], width = x.shape[1];
    bool bf16 = x.dtype == DTYPE_BF16;
    uint32_t threshold = (uint32_t)lroundf(dropout.p * 65536.0f);
    MaskKey key = {(uint32_t)dropout.seed, (uint32_t)(dropout.seed >> 32) ^ dropout.input_id, threshold,
                   threshold < 65536u ? 65536.0f / (float)(65536u - threshold) : 0.0f};
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t t = 0; t < tokens; ++t)
        dropout_row(bf16, element_at_mutable(bf16, y.data, t * width), accumulate, element_at(bf16, x.data, t * width), width,
                    key, (uint32_t)layout->positions[t], (uint32_t)layout->sample_of_token[t], dropout.step);
    return STATUS_OK;
}
