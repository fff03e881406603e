/* Which sequence a row of a packed batch belongs to. */
#ifndef KERNELS_CUDA_SEGMENTS_CUH
#define KERNELS_CUDA_SEGMENTS_CUH

#include "kernels/cuda/common.cuh"

/* Sequences may be empty: the last one that begins at or before the row. */
__device__ __forceinline__ int64_t sequence_of_row(const int32_t *offsets, int64_t sequences, int64_t row) {
    int64_t low = 0, high = sequences - 1;
    while (low < high) {
        const int64_t middle = (low + high + 1) / 2;
        if (offsets[middle] <= row)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

#endif
