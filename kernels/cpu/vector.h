/* Vector arithmetic shared by the CPU ops: bfloat16 conversion, exp, and loads and stores that know the storage type.
 *
 * Everything is branch-free scalar code that the compiler vectorises inside `#pragma omp simd` loops. The storage type is
 * passed as a bool that is constant after inlining: BY_STORAGE makes one loop per type from one body. */
#ifndef KERNELS_CPU_VECTOR_H
#define KERNELS_CPU_VECTOR_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* Lanes of the vectors used by hand-blocked kernels: one register of the level. */
#if defined(__AVX512F__)
enum { LANES = 16 };
#else
enum { LANES = 8 };
#endif
typedef float Vector __attribute__((vector_size(LANES * 4)));
typedef float VectorUnaligned __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

ALWAYS_INLINE Vector vector_load(const float *p) { return (Vector)(*(const VectorUnaligned *)p); }
ALWAYS_INLINE void vector_store(float *p, Vector v) { *(VectorUnaligned *)p = (VectorUnaligned)v; }

ALWAYS_INLINE uint32_t float_bits(float x) {
    uint32_t u;
    memcpy(&u, &x, 4);
    return u;
}

ALWAYS_INLINE float float_from_bits(uint32_t u) {
    float x;
    memcpy(&x, &u, 4);
    return x;
}

ALWAYS_INLINE float bf16_to_float(uint16_t h) { return float_from_bits((uint32_t)h << 16); }

/* Round to nearest even; NaN stays a (quiet) NaN. */
ALWAYS_INLINE uint16_t bf16_from_float(float x) {
    uint32_t u = float_bits(x);
    uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    uint32_t quiet = (u >> 16) | 0x40u;
    return (uint16_t)((u & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
}

ALWAYS_INLINE float element_load(bool bf16, const void *p, int64_t i) {
    return bf16 ? bf16_to_float(((const uint16_t *)p)[i]) : ((const float *)p)[i];
}

ALWAYS_INLINE void element_store(bool bf16, void *p, int64_t i, float x) {
    if (bf16)
        ((uint16_t *)p)[i] = bf16_from_float(x);
    else
        ((float *)p)[i] = x;
}

/* The value that element_store would leave. */
ALWAYS_INLINE float element_round(bool bf16, float x) { return bf16 ? bf16_to_float(bf16_from_float(x)) : x; }

ALWAYS_INLINE const void *element_at(bool bf16, const void *p, int64_t i) { return (const char *)p + i * (bf16 ? 2 : 4); }
ALWAYS_INLINE void *element_at_mutable(bool bf16, void *p, int64_t i) { return (char *)p + i * (bf16 ? 2 : 4); }

/* e^x within 2 ulp: x = n ln 2 + r with |r| <= ln 2 / 2, the Taylor polynomial of degree 7 for e^r (its remainder is below
 * 6e-9), scaled by 2^n through the exponent bits. Below -87.33 (the last normal result) it returns 0; above 88.37 it stays
 * at 2.4e38, which serves softmax (x <= 0) and 1 / (1 + e^x). NaN passes through. */
ALWAYS_INLINE float exp_fast(float x) {
    const float low = -87.33f, high = 88.37f;
    float c = x < low ? low : x;
    c = c > high ? high : c;
    const float shift = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer held in the low mantissa bits */
    float shifted = c * 1.44269504089f + shift;
    float n = shifted - shift;
    float r = c - n * 0.693145751953125f;
    r -= n * 1.42860682030941723212e-6f;
    float p = 1.0f / 5040.0f;
    p = p * r + 1.0f / 720.0f;
    p = p * r + 1.0f / 120.0f;
    p = p * r + 1.0f / 24.0f;
    p = p * r + 1.0f / 6.0f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    float scale = float_from_bits((float_bits(shifted) << 23) + 0x3f800000u);
    return x < low ? 0.0f : p * scale;
}

/* Logistic function. */
ALWAYS_INLINE float sigmoid(float x) { return 1.0f / (1.0f + exp_fast(-x)); }

/* Calls an ALWAYS_INLINE function whose first parameter is the storage type with that parameter constant: two specialised
 * copies of its loops. Meant for functions that work on a row, inside the parallel loop. */
#define BY_STORAGE(is_bf16, function, ...) ((is_bf16) ? function(true, __VA_ARGS__) : function(false, __VA_ARGS__))

#endif
