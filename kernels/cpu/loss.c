/* Cross-entropy fused with the language-model head, over chunks of rows: only one chunk's logits exist at a time.
 *
 * The chunk depends on the vocabulary only. Logits are fp32; after the softmax their gradient takes their place, row by row,
 * in the activation type, so the bf16 gradient has the row stride of the fp32 logits. */
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/vector.h"
#include "kernels/scratch.h"

#include <math.h>

enum { SPAN = 4096 }; /* elements per partial sum */

typedef struct RowLoss {
    float nll, inverse_sum;
} RowLoss;

static float row_maximum(const float *z, int64_t count) {
    float maximum = -INFINITY;
#pragma omp simd reduction(max : maximum)
    for (int64_t i = 0; i < count; ++i) maximum = z[i] > maximum ? z[i] : maximum;
    return maximum;
}

/* z becomes exp(z - maximum). */
static RowLoss row_loss(float *z, int64_t count, int32_t label, float smoothing) {
    float maximum = row_maximum(z, count), z_label = z[label];
    double sum = 0.0, sum_z = 0.0;
    for (int64_t begin = 0; begin < count; begin += SPAN) {
        int64_t end = count - begin < SPAN ? count : begin + SPAN;
        float part = 0.0f, part_z = 0.0f;
#pragma omp simd reduction(+ : part, part_z)
        for (int64_t i = begin; i < end; ++i) {
            float e = exp_fast(z[i] - maximum);
            part_z += z[i] - maximum;
            z[i] = e;
            part += e;
        }
        sum += (double)part;
        sum_z += (double)part_z;
    }
    double above = log(sum); /* logsumexp - maximum */
    double target = (1.0 - (double)smoothing) * (double)(z_label - maximum);
    if (smoothing != 0.0f) target += (double)smoothing * sum_z / (double)count;
    return (RowLoss){(float)(above - target), (float)(1.0 / sum)};
}

ALWAYS_INLINE void gradient_span(bool bf16, void *to, const float *weights, float inverse_sum, float uniform, int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) element_store(bf16, to, i, weights[i] * inverse_sum - uniform);
}

/* Row of exp -> row of softmax - target, narrowed to the front of the same memory (through a buffer: the spans overlap). */
static void row_gradient(bool bf16, float *row, RowLoss loss, int64_t count, int32_t label, float smoothing) {
    float uniform = smoothing / (float)count, at_label = row[label] * loss.inverse_sum - uniform - (1.0f - smoothing);
    for (int64_t begin = 0; begin < count; begin += SPAN) {
        float buffer[SPAN];
        int64_t span = count - begin < SPAN ? count - begin : SPAN;
        BY_STORAGE(bf16, gradient_span, buffer, row + begin, loss.inverse_sum, uniform, span);
        if (label >= begin && label < begin + span) BY_STORAGE(bf16, element_store, buffer, label - begin, at_label);
        memcpy(element_at_mutable(bf16, row, begin), buffer, (size_t)span * (bf16 ? 2 : 4));
    }
}

typedef struct Loss {
    Tensor nll, dhidden, dweight, hidden, weight, rows, labels;
    float smoothing, scale;
    bool bf16;
    float *logits;           /* scratch [chunk, V] */
    char *gathered, *result; /* scratch [chunk, D], act */
} Loss;

static void gather(Device *device, const Loss *l, int64_t begin, int64_t count) {
    size_t bytes = (size_t)l->hidden.shape[1] * dtype_bytes(l->hidden.dtype);
    const int32_t *rows = (const int32_t *)l->rows.data + begin;
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t i = 0; i < count; ++i)
        memcpy(l->gathered + (size_t)i * bytes, (const char *)l->hidden.data + (size_t)rows[i] * bytes, bytes);
}

static void scatter(Device *device, const Loss *l, int64_t begin, int64_t count) {
    size_t bytes = (size_t)l->hidden.shape[1] * dtype_bytes(l->hidden.dtype);
    const int32_t *rows = (const int32_t *)l->rows.data + begin;
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t i = 0; i < count; ++i)
        memcpy((char *)l->dhidden.data + (size_t)rows[i] * bytes, l->result + (size_t)i * bytes, bytes);
}

static void losses(Device *device, const Loss *l, int64_t begin, int64_t count) {
    int64_t vocabulary = l->weight.shape[0];
    const int32_t *labels = (const int32_t *)l->labels.data + begin;
    float *nll = (float *)l->nll.data + begin;
    bool gradient = l->dhidden.data || l->dweight.data;
#pragma omp parallel for schedule(dynamic, 1) num_threads(device->threads)
    for (int64_t i = 0; i < count; ++i) {
        float *row = l->logits + i * vocabulary;
        RowLoss loss = row_loss(row, vocabulary, labels[i], l->smoothing);
        nll[i] = loss.nll;
        if (gradient) row_gradient(l->bf16, row, loss, vocabulary, labels[i], l->smoothing);
    }
}

static Status chunk(Device *device, const Loss *l, int64_t begin, int64_t count) {
    int64_t vocabulary = l->weight.shape[0], width = l->hidden.shape[1];
    Tensor logits = tensor_2d(l->logits, DTYPE_F32, count, vocabulary);
    Tensor gathered = tensor_2d(l->gathered, l->hidden.dtype, count, width);
    gather(device, l, begin, count);
    TRY(cpu_matmul_strided(device, logits, gathered, width, false, l->weight, true, tensor_absent(), 1.0f, 0.0f));
    losses(device, l, begin, count);
    Tensor gradient = tensor_2d(l->logits, l->hidden.dtype, count, vocabulary);
    int64_t stride = l->bf16 ? 2 * vocabulary : vocabulary;
    if (l->dweight.data)
        TRY(cpu_matmul_strided(device, l->dweight, gradient, stride, true, gathered, false, tensor_absent(), l->scale, 1.0f));
    if (l->dhidden.data) {
        Tensor result = tensor_2d(l->result, l->hidden.dtype, count, width);
        TRY(cpu_matmul_strided(device, result, gradient, stride, false, l->weight, false, tensor_absent(), l->scale, 0.0f));
        scatter(device, l, begin, count);
    }
    return STATUS_OK;
}

Status cpu_linear_cross_entropy(Device *device, Arena *scratch, Tensor nll, Tensor dhidden, Tensor dweight, Tensor hidden,
                                Tensor weight, Tensor rows, Tensor labels, float label_smoothing, float scale) {
    int64_t count = rows.shape[0], size = cross_entropy_chunk(device, weight.shape[0], count);
    if (dhidden.data) memset(dhidden.data, 0, tensor_bytes(dhidden));
    if (count == 0) return STATUS_OK;
    void *memory;
    TRY(arena_allocate(scratch, scratch_linear_cross_entropy(device, hidden, weight, rows), ARENA_HIGH, &memory));
    Loss loss = {nll,    dhidden, dweight, hidden, weight, rows, labels, label_smoothing, scale, hidden.dtype == DTYPE_BF16,
                 memory, NULL,    NULL};
    loss.gathered = (char *)(loss.logits + size * weight.shape[0]);
    loss.result = loss.gathered + (size_t)(size * hidden.shape[1]) * sizeof(float);
    Status status = STATUS_OK;
    for (int64_t begin = 0; begin < count && !status; begin += size)
        status = chunk(device, &loss, begin, count - begin < size ? count - begin : size);
    arena_release(scratch, memory);
    return status;
}
