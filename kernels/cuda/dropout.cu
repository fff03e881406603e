#include "kernels/cuda/dropout.cuh"

/* One thread per group of eight channels: the eight 16-bit pieces of one Philox block. WIDE: rows are multiples of eight
 * and aligned, so that a group is loaded at once. y may be x. */
template <typename T, bool WIDE>
__global__ void dropout_kernel(T *y, bool accumulate, const T *x, int64_t items, int64_t columns, DropoutMask mask) {
    const int64_t item = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
    if (item >= items) return;
    const int64_t groups = (columns + 7) / 8, row = item / groups, group = item % groups;
    const uint32_t kept = kept_channels(mask, row, group);
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
    for (int i = 0; i < 8; ++i) value[i] = before[i] + (kept >> i & 1 ? value[i] * mask.scale : 0.0f);
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
    const DropoutMask mask = dropout_mask(layout, dropout);
    if (rows == 0 || columns == 0 || (mask.threshold == 0 && y.data == x.data && !accumulate)) return STATUS_OK;
    const int64_t items = rows * ceil_divide(columns, 8);
    unsigned grid;
    TRY(linear_grid(__func__, items, 256, &grid));
    DISPATCH_FLOAT(x.dtype, T, {
        if (wide_access(columns, 8, y.data, x.data))
            ADAMEM_LAUNCH((dropout_kernel<T, true>), grid, 256, 0, context->stream, (T *)y.data, accumulate, (const T *)x.data,
                          items, columns, mask);
        else
            ADAMEM_LAUNCH((dropout_kernel<T, false>), grid, 256, 0, context->stream, (T *)y.data, accumulate, (const T *)x.data,
                          items, columns, mask);
    });
    return STATUS_OK;
}
