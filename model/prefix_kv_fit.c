#include "model/prefix_kv_fit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What the soft prefix leaves: keys and values per layer, on the host. */
typedef struct Capture {
    const SequenceLayout *layout;
    float *(*kept)[2]; /* [layers] keys and values [rows, width]; malloc'd */
} Capture;

/* n floats of a device tensor; malloc'd. */
static Status floats_of(Tape *tape, Tensor x, float **out) {
    int64_t n = tensor_elements(x);
    void *bits;
    TRY_ALLOC(*out = malloc((size_t)n * sizeof **out + 1));
    if (x.dtype == DTYPE_F32) return device_download(tape_device(tape), *out, x.data, (size_t)n * sizeof **out);
    TRY_ALLOC(bits = malloc((size_t)n * 2 + 1));
    Status status = device_download(tape_device(tape), bits, x.data, (size_t)n * 2);
    if (!status) convert_to_float("BF16", bits, n, *out);
    free(bits);
    return status;
}

static Status capture_attention(Tape *tape, void *context, int64_t layer, Value *q, Value *k, Value *v, AttentionShape shape,
                                Value **out) {
    const Capture *capture = context;
    TRY(floats_of(tape, k->data, &capture->kept[layer][0]));
    TRY(floats_of(tape, v->data, &capture->kept[layer][1]));
    return layer_attention(tape, q, k, v, capture->layout, shape, out);
}

/* Bottleneck U on the host, and the decoder's keys and values for the soft prefix alone. */
static Status run_prefix(const Adamem *adamem, Tape *tape, const AdamemContexts *contexts, const AdamemQueries *queries,
                         Capture *capture, float **bottleneck, int64_t *rows) {
    AdamemMemory memory;
    AdamemLatents latents;
    Value *u, *e, *hidden;
    TRY(tape_begin(tape, false, RECOMPUTE_NONE));
    TRY(adamem_encode(adamem, tape, contexts, &memory));
    TRY(adamem_condition(adamem, tape, &memory, queries, &latents));
    TRY(prefix_kv_bottleneck(&adamem->prefix_kv, tape, latents.z, &u));
    TRY(floats_of(tape, u->data, bottleneck));
    *rows = u->data.shape[0];
    TRY(adamem_project(adamem, tape, &latents, &e));
    capture->layout = latents.layout;
    DecoderRun run = {.layout = latents.layout, .attention = capture_attention, .attention_context = capture};
    return decoder_forward_embeddings(adamem->decoder, tape, &run, e, &hidden);
}

/* Lower triangle L of a[n,n] = L L^T, in its place. */
static Status factorise(double *a, int64_t n) {
    for (int64_t j = 0; j < n; ++j) {
        double d = a[j * n + j];
        for (int64_t k = 0; k < j; ++k) d -= a[j * n + k] * a[j * n + k];
        if (!(d > 0)) FAIL("prefix-KV cannot be fitted: the latents' bottleneck has too little rank for this ridge");
        a[j * n + j] = sqrt(d);
        for (int64_t i = j + 1; i < n; ++i) {
            double sum = a[i * n + j];
            for (int64_t k = 0; k < j; ++k) sum -= a[i * n + k] * a[j * n + k];
            a[i * n + j] = sum / a[j * n + j];
        }
    }
    return STATUS_OK;
}

/* L L^T x = x, in its place. */
static void solve(const double *l, int64_t n, double *x) {
    for (int64_t i = 0; i < n; ++i) {
        for (int64_t k = 0; k < i; ++k) x[i] -= l[i * n + k] * x[k];
        x[i] /= l[i * n + i];
    }
    for (int64_t i = n - 1; i >= 0; --i) {
        for (int64_t k = i + 1; k < n; ++k) x[i] -= l[k * n + i] * x[k];
        x[i] /= l[i * n + i];
    }
}

static Status factorised_normal(const float *u, int64_t rows, int64_t n, double ridge, double *a) {
    double trace = 0;
    for (int64_t i = 0; i < n; ++i)
        for (int64_t j = 0; j <= i; ++j) {
            double sum = 0;
            for (int64_t r = 0; r < rows; ++r) sum += (double)u[r * n + i] * u[r * n + j];
            a[i * n + j] = a[j * n + i] = sum;
            if (i == j) trace += sum;
        }
    for (int64_t i = 0; i < n; ++i) a[i * n + i] += ridge * trace / (double)n;
    return factorise(a, n);
}

/* One matrix W [width, n] from targets [rows, width]; adds to the squared distance and the squared size. */
static Status fit_matrix(const Adamem *adamem, Parameter *parameter, const float *u, const float *targets, int64_t rows,
                         const double *l, double squares[2]) {
    int64_t width = parameter->shape[0], n = parameter->shape[1];
    double *x;
    TRY_ALLOC(x = malloc((size_t)n * sizeof *x + (size_t)(width * n) * sizeof(float)));
    float *weights = (float *)(x + n);
    for (int64_t c = 0; c < width; ++c) {
        memset(x, 0, (size_t)n * sizeof *x);
        for (int64_t r = 0; r < rows; ++r)
            for (int64_t i = 0; i < n; ++i) x[i] += (double)u[r * n + i] * targets[r * width + c];
        solve(l, n, x);
        for (int64_t i = 0; i < n; ++i) weights[c * n + i] = (float)x[i];
        for (int64_t r = 0; r < rows; ++r) {
            double found = 0, wanted = targets[r * width + c];
            for (int64_t i = 0; i < n; ++i) found += u[r * n + i] * x[i];
            squares[0] += (found - wanted) * (found - wanted);
            squares[1] += wanted * wanted;
        }
    }
    Status status = parameter_set(adamem->parameters, parameter, weights);
    if (!status) status = device_synchronize(adamem->parameters->device);
    free(x);
    return status;
}

static Status fit_layers(const Adamem *adamem, const Capture *capture, const float *u, int64_t rows, double ridge,
                         double squares[2]) {
    int64_t n = adamem->config.prefix_kv_size;
    double *normal;
    TRY_ALLOC(normal = malloc((size_t)(n * n) * sizeof *normal));
    Status status = factorised_normal(u, rows, n, ridge, normal);
    for (int64_t layer = 0; layer < adamem->decoder->config.num_hidden_layers && !status; ++layer)
        for (int i = 0; i < 2 && !status; ++i)
            status =
                fit_matrix(adamem, adamem->prefix_kv.layers[layer][i].weight, u, capture->kept[layer][i], rows, normal, squares);
    free(normal);
    return status;
}

Status adamem_fit_prefix_kv(Adamem *adamem, Tape *tape, const AdamemContexts *contexts, const AdamemQueries *queries,
                            double ridge, double *error) {
    int64_t layers = adamem->decoder->config.num_hidden_layers, rows;
    double squares[2] = {0, 0};
    float *bottleneck = NULL;
    Capture capture = {.layout = NULL};
    if (!adamem->prefix_kv.layers) INVALID("adamem.interface is \"soft_prefix\": this network has no prefix-KV");
    TRY_ALLOC(capture.kept = calloc((size_t)layers, sizeof *capture.kept));
    Status status = run_prefix(adamem, tape, contexts, queries, &capture, &bottleneck, &rows);
    if (!status) status = fit_layers(adamem, &capture, bottleneck, rows, ridge, squares);
    status_free(tape_begin(tape, false, RECOMPUTE_NONE)); /* gives back; cannot fail */
    for (int64_t layer = 0; layer < layers; ++layer)
        for (int i = 0; i < 2; ++i) free(capture.kept[layer][i]);
    free(capture.kept);
    free(bottleneck);
    if (!status) *error = squares[1] > 0 ? sqrt(squares[0] / squares[1]) : 0;
    return status;
}
