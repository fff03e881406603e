/* Cross-entropy and single log-probabilities fused with the language-model head, over chunks of rows: only one chunk's logits
 * exist at a time.
 *
 * The chunk depends on the vocabulary only. Logits are fp32; after the softmax their gradient takes their place, row by row,
 * in the activation type, so the bf16 gradient has the row stride of the fp32 logits. */
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/vector.h"
#include "kernels/scratch.h"

#include <math.h>

enum { SPAN = 4096 }; /* elements per partial sum */

/* Of a row z: its maximum, sum exp(z - maximum), sum (z - maximum). */
typedef struct RowSums {
    float maximum;
    double sum, sum_z;
} RowSums;

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
static RowSums row_exponentials(float *z, int64_t count) {
    float maximum = row_maximum(z, count);
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
    return (RowSums){maximum, sum, sum_z};
}

static RowLoss row_loss(float *z, int64_t count, int32_t label, float smoothing) {
    float z_label = z[label];
    RowSums sums = row_exponentials(z, count);
    double above = log(sums.sum); /* logsumexp - maximum */
    double target = (1.0 - (double)smoothing) * (double)(z_label - sums.maximum);
    if (smoothing != 0.0f) target += (double)smoothing * sums.sum_z / (double)count;
    return (RowLoss){(float)(above - target), (float)(1.0 / sums.sum)};
}

ALWAYS_INLINE void gradient_span(bool bf16, void *to, const float *weights, float inverse_sum, float uniform, int64_t count) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) element_store(bf16, to, i, weights[i] * inverse_sum - uniform);
}

/* A row of the gradient: factor * exp - uniform, less `label` at the label. */
typedef struct RowGradient {
    float factor, uniform, label;
} RowGradient;

/* Row of exp -> row of the gradient, narrowed to the front of the same memory (through a buffer: the spans overlap). */
static void row_gradient(bool bf16, float *row, RowGradient g, int64_t count, int32_t label) {
    float at_label = row[label] * g.factor - g.uniform - g.label;
    for (int64_t begin = 0; begin < count; begin += SPAN) {
        float buffer[SPAN];
        int64_t span = count - begin < SPAN ? count - begin : SPAN;
        BY_STORAGE(bf16, gradient_span, buffer, row + begin, g.factor, g.uniform, span);
        if (label >= begin && label < begin + span) BY_STORAGE(bf16, element_store, buffer, label - begin, at_label);
        memcpy(element_at_mutable(bf16, row, begin), buffer, (size_t)span * (bf16 ? 2 : 4));
    }
}

typedef struct Loss {
    Tensor nll, dhidden, dweight, hidden, weight, rows, labels;
    const CrossEntropySettings *settings;
    bool bf16, scaled;       /* scaled: the logits' gradient holds the scale already, which has a part without it */
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

static bool has_pairs(const CrossEntropySettings *settings) { return settings->pair_derivative.data != NULL; }

/* The gradient without the scale, which the products with it bring in. */
static void plain_gradient(const Loss *l, float *row, RowLoss loss, int32_t label) {
    int64_t vocabulary = l->weight.shape[0];
    float smoothing = l->settings->label_smoothing;
    RowGradient g = {loss.inverse_sum, smoothing / (float)vocabulary, 1.0f - smoothing};
    row_gradient(l->bf16, row, g, vocabulary, label);
}

/* Of row i of all: with its weight and its pairs' derivatives. At a pair's token exp is gone, but log_p tells. */
static void scaled_gradient(const Loss *l, float *row, RowLoss loss, int64_t i, int32_t label) {
    const CrossEntropySettings *settings = l->settings;
    int64_t vocabulary = l->weight.shape[0];
    const float *weights = settings->row_weight.data, *derivative = settings->pair_derivative.data;
    const float *log_p = settings->pair_log_probability.data;
    const int32_t *offsets = settings->pairs.offsets.data, *tokens = settings->pairs.tokens.data;
    float scale = settings->scale * (weights ? weights[i] : 1.0f);
    double derivatives = 0;
    int64_t begin = has_pairs(settings) ? offsets[i] : 0, end = has_pairs(settings) ? offsets[i + 1] : 0;
    for (int64_t k = begin; k < end; ++k) derivatives += (double)derivative[k];
    float share = (float)((double)scale - derivatives);
    RowGradient g = {share * loss.inverse_sum, scale * (settings->label_smoothing / (float)vocabulary),
                     scale * (1.0f - settings->label_smoothing)};
    row_gradient(l->bf16, row, g, vocabulary, label);
    for (int64_t k = begin; k < end; ++k) {
        float value = share * (float)exp((double)log_p[k]) - g.uniform + derivative[k];
        BY_STORAGE(l->bf16, element_store, row, tokens[k], tokens[k] == label ? value - g.label : value);
    }
}

static void losses(Device *device, const Loss *l, int64_t begin, int64_t count) {
    int64_t vocabulary = l->weight.shape[0];
    const int32_t *labels = (const int32_t *)l->labels.data + begin;
    float *nll = (float *)l->nll.data + begin;
    bool gradient = l->dhidden.data || l->dweight.data;
#pragma omp parallel for schedule(dynamic, 1) num_threads(device->threads)
    for (int64_t i = 0; i < count; ++i) {
        float *row = l->logits + i * vocabulary;
        RowLoss loss = row_loss(row, vocabulary, labels[i], l->settings->label_smoothing);
        nll[i] = loss.nll;
        if (gradient && l->scaled)
            scaled_gradient(l, row, loss, begin + i, labels[i]);
        else if (gradient)
            plain_gradient(l, row, loss, labels[i]);
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
    float scale = l->scaled ? 1.0f : l->settings->scale;
    if (l->dweight.data)
        TRY(cpu_matmul_strided(device, l->dweight, gradient, stride, true, gathered, false, tensor_absent(), scale, 1.0f));
    if (l->dhidden.data) {
        Tensor result = tensor_2d(l->result, l->hidden.dtype, count, width);
        TRY(cpu_matmul_strided(device, result, gradient, stride, false, l->weight, false, tensor_absent(), scale, 0.0f));
        scatter(device, l, begin, count);
    }
    return STATUS_OK;
}

Status cpu_linear_cross_entropy(Device *device, Arena *scratch, Tensor nll, Tensor dhidden, Tensor dweight, Tensor hidden,
                                Tensor weight, Tensor rows, Tensor labels, const CrossEntropySettings *settings) {
    int64_t count = rows.shape[0], size = cross_entropy_chunk(device, weight.shape[0], count);
    if (dhidden.data) memset(dhidden.data, 0, tensor_bytes(dhidden));
    if (count == 0) return STATUS_OK;
    void *memory;
    TRY(arena_allocate(scratch, scratch_linear_cross_entropy(device, hidden, weight, rows), ARENA_HIGH, &memory));
    bool scaled = settings->row_weight.data || has_pairs(settings), bf16 = hidden.dtype == DTYPE_BF16;
    Loss loss = {nll, dhidden, dweight, hidden, weight, rows, labels, settings, bf16, scaled, memory, NULL, NULL};
    loss.gathered = (char *)(loss.logits + size * weight.shape[0]);
    loss.result = loss.gathered + (size_t)(size * hidden.shape[1]) * sizeof(float);
    Status status = STATUS_OK;
    for (int64_t begin = 0; begin < count && !status; begin += size)
        status = chunk(device, &loss, begin, count - begin < size ? count - begin : size);
    arena_release(scratch, memory);
    return status;
}

static void log_probabilities(Device *device, const Loss *l, Tensor log_p, TokenPairs pairs, int64_t begin, int64_t count) {
    int64_t vocabulary = l->weight.shape[0];
    const int32_t *offsets = (const int32_t *)pairs.offsets.data + begin, *tokens = pairs.tokens.data;
    float *out = log_p.data;
#pragma omp parallel for schedule(dynamic, 1) num_threads(device->threads)
    for (int64_t i = 0; i < count; ++i) {
        if (offsets[i] == offsets[i + 1]) continue;
        float *row = l->logits + i * vocabulary;
        for (int64_t k = offsets[i]; k < offsets[i + 1]; ++k) out[k] = row[tokens[k]];
        RowSums sums = row_exponentials(row, vocabulary);
        double above = log(sums.sum);
        for (int64_t k = offsets[i]; k < offsets[i + 1]; ++k) out[k] = (float)((double)(out[k] - sums.maximum) - above);
    }
}

Status cpu_token_log_probabilities(Device *device, Arena *scratch, Tensor log_p, Tensor hidden, Tensor weight, Tensor rows,
                                   TokenPairs pairs) {
    int64_t count = rows.shape[0], width = hidden.shape[1], vocabulary = weight.shape[0];
    int64_t size = cross_entropy_chunk(device, vocabulary, count);
    if (count == 0) return STATUS_OK;
    void *memory;
    TRY(arena_allocate(scratch, scratch_token_log_probabilities(device, hidden, weight, rows), ARENA_HIGH, &memory));
    Loss loss = {.hidden = hidden, .weight = weight, .rows = rows, .logits = memory};
    loss.gathered = (char *)(loss.logits + size * vocabulary);
    Status status = STATUS_OK;
    for (int64_t begin = 0; begin < count && !status; begin += size) {
        int64_t n = count - begin < size ? count - begin : size;
        Tensor logits = tensor_2d(loss.logits, DTYPE_F32, n, vocabulary);
        Tensor gathered = tensor_2d(loss.gathered, hidden.dtype, n, width);
        gather(device, &loss, begin, n);
        status = cpu_matmul_strided(device, logits, gathered, width, false, weight, true, tensor_absent(), 1.0f, 0.0f);
        if (!status) log_probabilities(device, &loss, log_p, pairs, begin, n);
    }
    arena_release(scratch, memory);
    return status;
}
