/* SHA-256 blocks by the SHA instructions of x86 processors (Intel Goldmont and Ice Lake, AMD Zen, and later): some five times
 * the portable rate, which a checkpoint's digest waits for. */
#include "io/sha256.h"

#if defined(__x86_64__)

#include <cpuid.h>
#include <immintrin.h>
#include <stdbool.h>

/* By cpuid: not every compiler knows "sha" in __builtin_cpu_supports. */
static bool has_sha_instructions(void) {
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_SSSE3) || !(c & bit_SSE4_1)) return false;
    enum { SHA_BIT = 1u << 29 };
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & SHA_BIT);
}

/* The instructions want the state as (a,b,e,f) and (c,d,g,h), first letter in the highest lane, and take 4 words of the
 * schedule w at a time: sha256msg1 adds s0(w[t-15]) to w[t-16], the shifted pair is w[t-7], sha256msg2 adds s1(w[t-2]). */
__attribute__((target("sha,sse4.1,ssse3"))) static void compress(uint32_t state[8], const unsigned char *blocks, size_t count) {
    const __m128i big_endian = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
    const __m128i *constants = (const __m128i *)sha256_round_constants;
    const int *s = (const int *)state;
    __m128i abef = _mm_set_epi32(s[0], s[1], s[4], s[5]), cdgh = _mm_set_epi32(s[2], s[3], s[6], s[7]);
    for (; count; --count, blocks += 64) {
        __m128i w[4], abef_before = abef, cdgh_before = cdgh;
#pragma GCC unroll 16
        for (int i = 0; i < 16; ++i) {
            __m128i *next = &w[i % 4], last = w[(i + 3) % 4];
            if (i < 4) {
                *next = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)blocks + i), big_endian);
            } else {
                __m128i sum =
                    _mm_add_epi32(_mm_sha256msg1_epu32(*next, w[(i + 1) % 4]), _mm_alignr_epi8(last, w[(i + 2) % 4], 4));
                *next = _mm_sha256msg2_epu32(sum, last);
            }
            __m128i words = _mm_add_epi32(*next, _mm_loadu_si128(constants + i));
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, words);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(words, 0x0e));
        }
        abef = _mm_add_epi32(abef, abef_before);
        cdgh = _mm_add_epi32(cdgh, cdgh_before);
    }
    uint32_t low[4], high[4];
    _mm_storeu_si128((__m128i *)low, abef);
    _mm_storeu_si128((__m128i *)high, cdgh);
    state[0] = low[3], state[1] = low[2], state[4] = low[1], state[5] = low[0];
    state[2] = high[3], state[3] = high[2], state[6] = high[1], state[7] = high[0];
}

Sha256Compress *sha256_compress_x86(void) { return has_sha_instructions() ? compress : NULL; }

#else

Sha256Compress *sha256_compress_x86(void) { return NULL; }

#endif
