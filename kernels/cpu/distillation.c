/* Cross-entropy and distillation at label rows, over chunks of rows: only one chunk's logits of student and teacher exist at a
 * time. The student's gradient takes the place of its logits, row by row, in the activation type, so in bf16 its rows lie twice
 * as far apart as they are long. */
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/vector.h"
#include "kernels/scratch.h"

#include <math.h>

enum { SPAN = 4096 }; /* elements of a gradient at a time */
/* Elements per fp32 partial sum: short, because the divergence of a near teacher is a small difference of these sums. */
enum { SUM_SPAN = 256 };

/* Sums of exponentials relative to the maxima: of the student's logits, of them and the teacher's over the temperature; and of
 * the teacher's exponentials times (teacher's - student's logit). */
typedef struct RowSums {
    float student_maximum, teacher_maximum;
    double plain, student, teacher, product;
} RowSums;

static float row_maximum(const float *z, int64_t count) {
    float maximum = -INFINITY;
#pragma omp simd reduction(max : maximum)
    for (int64_t i = 0; i < count; ++i) maximum = z[i] > maximum ? z[i] : maximum;
    return maximum;
}

/* Student and teacher in one loop of one form: equal logits give equal bits. */
static void add_span(RowSums *sums, const float *z, const float *t, float inverse_temperature, int64_t count) {
    float student = 0.0f, teacher = 0.0f, product = 0.0f, z_maximum = sums->student_maximum, t_maximum = sums->teacher_maximum;
#pragma omp simd reduction(+ : student, teacher, product)
    for (int64_t i = 0; i < count; ++i) {
        float a = z[i] - z_maximum, b = t[i] - t_maximum, e = exp_fast(b * inverse_temperature);
        student += exp_fast(a * inverse_temperature);
        teacher += e;
        product += e * (b - a);
    }
    sums->student += (double)student;
    sums->teacher += (double)teacher;
    sums->product += (double)product;
}

static float plain_span(const float *z, float maximum, int64_t count) {
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; ++i) sum += exp_fast(z[i] - maximum);
    return sum;
}

static RowSums row_sums(const float *z, const float *t, float temperature, int64_t count) {
    RowSums sums = {.student_maximum = row_maximum(z, count), .teacher_maximum = row_maximum(t, count)};
    for (int64_t begin = 0; begin < count; begin += SUM_SPAN) {
        int64_t span = count - begin < SUM_SPAN ? count - begin : SUM_SPAN;
        add_span(&sums, z + begin, t + begin, 1.0f / temperature, span);
        if (temperature != 1.0f) sums.plain += (double)plain_span(z + begin, sums.student_maximum, span);
    }
    if (temperature == 1.0f) sums.plain = sums.student;
    return sums;
}

/* Constants of a row's gradient. */
typedef struct RowGradient {
    float student_maximum, teacher_maximum, inverse_temperature;
    float nll_factor; /* nll_scale / sum */
    float kl_factor;  /* kl_scale T / sum of the student */
    float ratio;      /* sum of the student / sum of the teacher */
    bool plain;       /* the softmax of nll is another one */
} RowGradient;

/* q - p is (e_q - e_p ratio) / sum: exactly zero where student and teacher agree, whatever is fused. */
ALWAYS_INLINE void gradient_span(bool bf16, void *to, const float *z, const float *t, const RowGradient *g, int64_t count) {
    RowGradient c = *g;
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
        float a = z[i] - c.student_maximum, q = exp_fast(a * c.inverse_temperature);
        float p = exp_fast((t[i] - c.teacher_maximum) * c.inverse_temperature);
        float difference = c.kl_factor * (q - p * c.ratio);
        element_store(bf16, to, i, c.nll_factor * (c.plain ? exp_fast(a) : q) + difference);
    }
}

/* Row of logits -> gradient, narrowed to the front of the same memory (through a buffer: the spans overlap). */
static void row_gradient(bool bf16, float *row, const float *teacher, const RowGradient *g, float nll_scale, int64_t count,
                         int32_t label) {
    for (int64_t begin = 0; begin < count; begin += SPAN) {
        float buffer[SPAN];
        int64_t span = count - begin < SPAN ? count - begin : SPAN;
        BY_STORAGE(bf16, gradient_span, buffer, row + begin, teacher + begin, g, span);
        if (label >= begin && label < begin + span) {
            float at_label; /* unrounded before the subtraction */
            gradient_span(false, &at_label, row + label, teacher + label, g, 1);
            BY_STORAGE(bf16, element_store, buffer, label - begin, at_label - nll_scale);
        }
        memcpy(element_at_mutable(bf16, row, begin), buffer, (size_t)span * (bf16 ? 2 : 4));
    }
}

typedef struct Distillation {
    Tensor nll, kl, dhidden, dweight, hidden, weight, teacher, teacher_weight, rows, labels;
    DistillationSettings settings;
    bool bf16;
    float *logits, *teacher_logits; /* scratch [chunk, V] */
    char *gathered, *result;        /* scratch [chunk, D], act */
} Distillation;

static void distill_row(const Distillation *d, int64_t row, int64_t in_chunk, bool gradient) {
    int64_t vocabulary = d->weight.shape[0];
    float *z = d->logits + in_chunk * vocabulary, temperature = d->settings.temperature;
    const float *t = d->teacher_logits + in_chunk * vocabulary;
    int32_t label = ((const int32_t *)d->labels.data)[row];
    RowSums sums = row_sums(z, t, temperature, vocabulary);
    double scale = (double)temperature;
    ((float *)d->nll.data)[row] = (float)(log(sums.plain) - (double)(z[label] - sums.student_maximum));
    ((float *)d->kl.data)[row] =
        (float)(scale * scale * (sums.product / sums.teacher / scale + (log(sums.student) - log(sums.teacher))));
    if (!gradient) return;
    RowGradient g = {.student_maximum = sums.student_maximum,
                     .teacher_maximum = sums.teacher_maximum,
                     .inverse_temperature = 1.0f / temperature,
                     .nll_factor = (float)((double)d->settings.nll_scale / sums.plain),
                     .kl_factor = (float)((double)d->settings.kl_scale * scale / sums.student),
                     .ratio = (float)(sums.student / sums.teacher),
                     .plain = temperature != 1.0f};
    row_gradient(d->bf16, z, t, &g, d->settings.nll_scale, vocabulary, label);
}

/* Rows of the result go to the rows of dhidden; they are distinct. */
static void scatter(Device *device, const Distillation *d, int64_t begin, int64_t count) {
    size_t bytes = (size_t)d->hidden.shape[1] * dtype_bytes(d->hidden.dtype);
    const int32_t *rows = (const int32_t *)d->rows.data + begin;
#pragma omp parallel for schedule(static) num_threads(device->threads)
    for (int64_t i = 0; i < count; ++i)
        memcpy((char *)d->dhidden.data + (size_t)rows[i] * bytes, d->result + (size_t)i * bytes, bytes);
}

static Status chunk(Device *device, const Distillation *d, int64_t begin, int64_t count) {
    int64_t vocabulary = d->weight.shape[0], width = d->hidden.shape[1];
    DType act = d->hidden.dtype;
    Tensor gathered = tensor_2d(d->gathered, act, count, width);
    Tensor teacher = tensor_2d((char *)d->teacher.data + (size_t)(begin * width) * dtype_bytes(act), act, count, width);
    TRY(cpu_gather_rows(device, gathered, d->hidden, tensor_1d((int32_t *)d->rows.data + begin, DTYPE_I32, count)));
    TRY(cpu_matmul_strided(device, tensor_2d(d->logits, DTYPE_F32, count, vocabulary), gathered, width, false, d->weight, true,
                           tensor_absent(), 1.0f, 0.0f));
    TRY(cpu_matmul_strided(device, tensor_2d(d->teacher_logits, DTYPE_F32, count, vocabulary), teacher, width, false,
                           d->teacher_weight, true, tensor_absent(), 1.0f, 0.0f));
    bool wanted = d->dhidden.data || d->dweight.data;
#pragma omp parallel for schedule(dynamic, 1) num_threads(device->threads)
    for (int64_t i = 0; i < count; ++i) distill_row(d, begin + i, i, wanted);
    Tensor gradient = tensor_2d(d->logits, act, count, vocabulary);
    int64_t stride = d->bf16 ? 2 * vocabulary : vocabulary;
    if (d->dweight.data)
        TRY(cpu_matmul_strided(device, d->dweight, gradient, stride, true, gathered, false, tensor_absent(), 1.0f, 1.0f));
    if (!d->dhidden.data) return STATUS_OK;
    TRY(cpu_matmul_strided(device, tensor_2d(d->result, act, count, width), gradient, stride, false, d->weight, false,
                           tensor_absent(), 1.0f, 0.0f));
    scatter(device, d, begin, count);
    return STATUS_OK;
}

Status cpu_linear_distillation(Device *device, Arena *scratch, Tensor nll, Tensor kl, Tensor dhidden, Tensor dweight,
                               Tensor hidden, Tensor weight, Tensor teacher, Tensor teacher_weight, Tensor rows, Tensor labels,
                               DistillationSettings settings) {
    int64_t count = rows.shape[0], size = distillation_chunk(device, weight.shape[0], count);
    if (dhidden.data) memset(dhidden.data, 0, tensor_bytes(dhidden));
    if (count == 0) return STATUS_OK;
    void *memory;
    TRY(arena_allocate(scratch, scratch_linear_distillation(device, hidden, weight, rows), ARENA_HIGH, &memory));
    size_t logits = scratch_round((size_t)(size * weight.shape[0]) * sizeof(float));
    size_t states = scratch_round((size_t)(size * hidden.shape[1]) * dtype_bytes(hidden.dtype));
    Distillation d = {.nll = nll,
                      .kl = kl,
                      .dhidden = dhidden,
                      .dweight = dweight,
                      .hidden = hidden,
                      .weight = weight,
                      .teacher = teacher,
                      .teacher_weight = teacher_weight,
                      .rows = rows,
                      .labels = labels,
                      .settings = settings,
                      .bf16 = hidden.dtype == DTYPE_BF16,
                      .logits = memory,
                      .teacher_logits = (float *)((char *)memory + logits),
                      .gathered = (char *)memory + 2 * logits,
                      .result = (char *)memory + 2 * logits + states};
    Status status = STATUS_OK;
    for (int64_t begin = 0; begin < count && !status; begin += size)
        status = chunk(device, &d, begin, count - begin < size ? count - begin : size);
    arena_release(scratch, memory);
    return status;
}
