/* The dropout mask of kernels/ops.h on the device. */
#ifndef KERNELS_CUDA_DROPOUT_CUH
#define KERNELS_CUDA_DROPOUT_CUH

#include "kernels/cuda/common.cuh"

extern "C" {
#include "io/random.h"
}

/* threshold 0: nothing is dropped, and positions and sample_of_token are not read. */
struct DropoutMask {
    const int32_t *positions, *sample_of_token;
    uint32_t key0, key1, step, threshold;
    float scale; /* of kept elements */
};

static inline DropoutMask dropout_mask(const SequenceLayout *layout, Dropout dropout) {
    DropoutMask mask;
    mask.positions = layout->positions;
    mask.sample_of_token = layout->sample_of_token;
    mask.key0 = (uint32_t)dropout.seed;
    mask.key1 = (uint32_t)(dropout.seed >> 32) ^ dropout.input_id;
    mask.step = dropout.step;
    mask.threshold = (uint32_t)lround((double)dropout.p * 65536.0);
    mask.scale = mask.threshold < 65536 ? 65536.0f / (float)(65536 - mask.threshold) : 0.0f;
    return mask;
}

/* Bit i is set when channel 8 group + i of the token is kept: one Philox block. */
__device__ __forceinline__ uint32_t kept_channels(const DropoutMask &mask, int64_t token, int64_t group) {
    const uint32_t counter[4] = {(uint32_t)group, (uint32_t)mask.positions[token], (uint32_t)mask.sample_of_token[token],
                                 mask.step};
    uint32_t words[4], kept = 0;
    philox4x32(mask.key0, mask.key1, counter, words);
#pragma unroll
    for (int i = 0; i < 8; ++i) kept |= ((words[i / 2] >> (16 * (i % 2)) & 0xffffu) >= mask.threshold ? 1u : 0u) << i;
    return kept;
}

#endif
