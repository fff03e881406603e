/* The dropout mask of kernels/ops.h, many channels at a time. */
#ifndef KERNELS_CPU_MASK_H
#define KERNELS_CPU_MASK_H

#include "kernels/cpu/vector.h"
#include "kernels/ops.h"

#include <math.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

/* Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"). */
enum { PHILOX_ROUNDS = 10, CHANNELS_PER_CALL = 8 };

typedef struct MaskKey {
    uint32_t key0, key1, step, threshold; /* an element is kept where its 16 bits are not below the threshold */
    float scale;
} MaskKey;

ALWAYS_INLINE MaskKey mask_key(Dropout dropout) {
    uint32_t threshold = (uint32_t)lroundf(dropout.p * 65536.0f);
    return (MaskKey){(uint32_t)dropout.seed, (uint32_t)(dropout.seed >> 32) ^ dropout.input_id, dropout.step, threshold,
                     threshold < 65536u ? 65536.0f / (float)(65536u - threshold) : 0.0f};
}

/* One call per 64-bit lane: a 32-bit word in the lower half, anything in the upper. */
enum { CALLS = LANES / 2, GROUP = 8 * CALLS, SPAN = CHANNELS_PER_CALL * GROUP };
typedef uint64_t Words __attribute__((vector_size(CALLS * 8)));

/* Full product of the lower halves. The compiler does not find this instruction by itself. */
ALWAYS_INLINE Words multiply_words(Words a, uint32_t b) {
#if defined(__AVX512F__)
    return (Words)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi64(b));
#elif defined(__AVX2__)
    return (Words)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x(b));
#else
    return (a & 0xffffffffu) * b;
#endif
}

/* The mask bits of the calls first .. first + CALLS - 1, 128 each. On a little-endian machine the 16-bit pieces of the stored
 * words lie in channel order. */
ALWAYS_INLINE void draw_calls(uint64_t *bits, MaskKey key, uint32_t first, uint32_t position, uint32_t sample) {
    Words c0, c1 = (Words){0} + position, c2 = (Words){0} + sample, c3 = (Words){0} + key.step;
    for (uint32_t g = 0; g < CALLS; ++g) c0[g] = first + g;
    uint32_t k0 = key.key0, k1 = key.key1;
#pragma GCC unroll 10
    for (int round = 0; round < PHILOX_ROUNDS; ++round, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
        Words p0 = multiply_words(c0, 0xD2511F53u), p1 = multiply_words(c2, 0xCD9E8D57u);
        c0 = (p1 >> 32) ^ c1 ^ k0;
        c2 = (p0 >> 32) ^ c3 ^ k1;
        c1 = p1;
        c3 = p0;
    }
    Words low = (c0 & 0xffffffffu) | (c1 << 32), high = (c2 & 0xffffffffu) | (c3 << 32);
    for (int g = 0; g < CALLS; ++g) {
        bits[2 * g] = low[g];
        bits[2 * g + 1] = high[g];
    }
}

/* The 16 bits of the SPAN channels from `channel` on, a multiple of 8, of one token. */
ALWAYS_INLINE void mask_span(uint16_t pieces[SPAN], MaskKey key, int64_t channel, uint32_t position, uint32_t sample) {
    uint64_t bits[2 * GROUP];
    for (int g = 0; g < GROUP; g += CALLS)
        draw_calls(bits + 2 * g, key, (uint32_t)(channel / CHANNELS_PER_CALL) + (uint32_t)g, position, sample);
    memcpy(pieces, bits, sizeof bits);
}

/* The same of `count` channels, rounded up to whole calls: pieces has room for count + CHANNELS_PER_CALL * CALLS. */
ALWAYS_INLINE void mask_channels(uint16_t *pieces, MaskKey key, int64_t channel, int64_t count, uint32_t position,
                                 uint32_t sample) {
    for (int64_t c = 0; c < count; c += CHANNELS_PER_CALL * CALLS) {
        uint64_t bits[2 * CALLS];
        draw_calls(bits, key, (uint32_t)((channel + c) / CHANNELS_PER_CALL), position, sample);
        memcpy(pieces + c, bits, sizeof bits);
    }
}

#endif
