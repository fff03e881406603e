#include "kernels/cuda/common.cuh"

extern "C" {
#include "io/random.h"
}

/* One thread per group of eight channels: the eight 16-bit pieces of one Philox block. WIDE: rows are multiples of eight
 * and aligned, so that a group is loaded at once. y may be x. */
template <typename T, bool WIDE>
__global__ void dropout_kernel(T *y, bool accumulate, const T *x, const int32_t *__restrict__ positions,
                               const int32_t *__restrict__ sample_of_token, int64_t items, int64_t columns, uint32_t key0,
                               uint32_t key1, uint32_t step, uint32_t threshold, float scale) {
    const int64_t item = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
    if (item >= items) return;
    const int64_t groups = (columns + 7) / 8, row = item / groups, group = item % groups;
    const uint32_t counter[4] = {(uint32_t)group, (uint32_t)positions[row], (uint32_t)sample_of_token[row], step};
    uint32_t words[4];
    philox4x32(key0, key1, counter, words);
    const int64_t start = row * columns + group * 8;
    const int count = columns - group * 8 < 8 ? (int)(columns - group * 8) : 8;
    float value[8] = {0}, before[8] = {0};
    if (WIDE) {
        load<8>(value, x + start);
        if (accumulate) load<8>(before, y + start);
    } else {
#pragma unroll
        for (int i = 0; i < 8; ++i)
            if (i < count) {
                value[i] = to_float(x[start + i]);
                if (accumulate) before[i] = to_float(y[start + i]);
            }
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        const uint32_t bits = words[i / 2] >> (16 * (i % 2)) & 0xffffu;
        value[i] = before[i] + (bits >= threshold ? value[i] * scale : 0.0f);
    }
    if (WIDE) {
        store<8>(y + start, value);
    } else {
#pragma unroll
        for (int i = 0; i < 8; ++i)
            if (i < count) y[start + i] = from_float<T>(value[i]);
    }
}

extern "C" Status cuda_dropout(Device *device, Tensor y, bool accumulate, Tensor x, const SequenceLayout *layout,
                               Dropout dropout) {
    CudaContext *context = cuda_context(device);
    const int64_t columns = column_count(x), rows = row_count(x);
    const uint32_t threshold = (uint32_t)lround((double)dropout.p * 65536.0);
    if (rows == 0 || columns == 0 || (threshold == 0 && y.data == x.data && !accumulate)) return STATUS_OK;
    const float scale = threshold < 65536 ? 65536.0f / (float)(65536 - threshold) : 0.0f;
    const int64_t items = rows * ceil_divide(columns, 8);
    const uint32_t key0 = (uint32_t)dropout.seed, key1 = (uint32_t)(dropout.seed >> 32) ^ dropout.input_id;
    unsigned grid;
    TRY(linear_grid(__func__, items, 256, &grid));
    DISPATCH_FLOAT(x.dtype, T, {
        if (wide_access(columns, 8, y.data, x.data))
            ADAMEM_LAUNCH((dropout_kernel<T, true>), grid, 256, 0, context->stream, (T *)y.data, accumulate, (const T *)x.data,
                          layout->positions, layout->sample_of_token, items, columns, key0, key1, dropout.step, threshold, scale);
        else
            ADAMEM_LAUNCH((dropout_kernel<T, false>), grid, 256, 0, context->stream, (T *)y.data, accumulate, (const T *)x.data,
                          layout->positions, layout->sample_of_token, items, columns, key0, key1, dropout.step, threshold, scale);
    });
    return STATUS_OK;
}
