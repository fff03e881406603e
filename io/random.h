/* Counter-based random numbers: Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC'11).
 * A number is a pure function of (key, counter), so any thread, rank or backend produces it without a state. */
#ifndef IO_RANDOM_H
#define IO_RANDOM_H

#include <math.h>
#include <stdint.h>

#ifdef __CUDACC__ /* the CUDA backend draws dropout masks inside its kernels */
#define RANDOM_FUNCTION static inline __host__ __device__
#else
#define RANDOM_FUNCTION static inline
#endif

RANDOM_FUNCTION void philox4x32(uint32_t key0, uint32_t key1, const uint32_t counter[4], uint32_t out[4]) {
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    for (int round = 0; round < 10; ++round) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ key0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ key1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

/* A sequential stream over the counters of one (seed, stream) pair. */
typedef struct RandomStream {
    uint32_t key[2], counter[4], block[4];
    int used;
} RandomStream;

static inline RandomStream random_stream(uint64_t seed, uint64_t stream) {
    RandomStream s = {{(uint32_t)seed, (uint32_t)(seed >> 32)}, {0, 0, (uint32_t)stream, (uint32_t)(stream >> 32)}, {0}, 4};
    return s;
}

static inline uint32_t random_u32(RandomStream *s) {
    if (s->used == 4) {
        philox4x32(s->key[0], s->key[1], s->counter, s->block);
        if (++s->counter[0] == 0) ++s->counter[1];
        s->used = 0;
    }
    return s->block[s->used++];
}

static inline uint64_t random_u64(RandomStream *s) {
    uint64_t high = random_u32(s);
    return high << 32 | random_u32(s);
}

/* A stream number for a tensor's name (FNV-1a, 64 bits): its random values do not depend on what else is made. */
static inline uint64_t random_stream_of_name(const char *name) {
    uint64_t hash = 0xCBF29CE484222325u;
    for (; *name; ++name) hash = (hash ^ (unsigned char)*name) * 0x100000001B3u;
    return hash;
}

/* Uniform in [0, 1), 53 bits. */
static inline double random_uniform(RandomStream *s) { return (double)(random_u64(s) >> 11) * 0x1p-53; }

/* Uniform integer in [0, n), n > 0, without bias (rejection). */
static inline uint64_t random_below(RandomStream *s, uint64_t n) {
    uint64_t limit = UINT64_MAX - UINT64_MAX % n, x;
    do x = random_u64(s);
    while (x >= limit);
    return x % n;
}

/* Standard normal (Box-Muller, cosine branch). */
static inline double random_normal(RandomStream *s) {
    double u = 1.0 - random_uniform(s), v = random_uniform(s);
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586476925 * v);
}

/* Standard normal number `index` of a stream (Box-Muller, cosine branch): one counter each, so any thread may draw it. */
static inline double random_normal_at(uint64_t seed, uint64_t stream, uint64_t index) {
    uint32_t counter[4] = {(uint32_t)index, (uint32_t)(index >> 32), (uint32_t)stream, (uint32_t)(stream >> 32)}, bits[4];
    philox4x32((uint32_t)seed, (uint32_t)(seed >> 32), counter, bits);
    double u = 1.0 - (double)(((uint64_t)bits[0] << 32 | bits[1]) >> 11) * 0x1p-53;
    double v = (double)(((uint64_t)bits[2] << 32 | bits[3]) >> 11) * 0x1p-53;
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586476925 * v);
}

#endif
