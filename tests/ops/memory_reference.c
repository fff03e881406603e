#include "tests/ops/memory_reference.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* One query of one head, and the keys that it sees. */
typedef struct Query {
    int64_t at, key_head; /* elements where its q and, within a row, its key head begin */
    int64_t row;          /* of lse */
    int64_t begin, end;   /* rows of keys */
} Query;

static Query find_query(const SequenceLayout *queries, const SequenceLayout *keys, AttentionShape shape, int64_t s, int64_t i,
                        int64_t h) {
    int64_t n = queries->host_offsets[s + 1] - queries->host_offsets[s], m = keys->host_offsets[s + 1] - keys->host_offsets[s];
    int64_t row = queries->host_offsets[s] + i, seen = shape.causal ? m - n + i + 1 : m;
    return (Query){.at = (row * shape.query_heads + h) * shape.head_dimension,
                   .key_head = h / (shape.query_heads / shape.key_heads) * shape.head_dimension,
                   .row = h * queries->tokens + row,
                   .begin = keys->host_offsets[s],
                   .end = keys->host_offsets[s] + (seen > 0 ? seen : 0)};
}

/* weights[j] for the keys begin .. end-1; returns the log of the sum of exponentials. */
static double softmax_of(double *weights, const Query *query, const double *q, const double *k, AttentionShape shape) {
    int64_t stride = shape.key_heads * shape.head_dimension;
    double maximum = -INFINITY, sum = 0;
    for (int64_t j = query->begin; j < query->end; ++j) {
        double score = 0;
        for (int64_t e = 0; e < shape.head_dimension; ++e) score += q[query->at + e] * k[j * stride + query->key_head + e];
        weights[j] = score * (double)shape.scale;
        maximum = fmax(maximum, weights[j]);
    }
    if (query->begin == query->end) return -INFINITY;
    for (int64_t j = query->begin; j < query->end; ++j) sum += exp(weights[j] - maximum);
    for (int64_t j = query->begin; j < query->end; ++j) weights[j] = exp(weights[j] - maximum) / sum;
    return maximum + log(sum);
}

void reference_cross_attention_forward(double *out, double *lse, const double *q, const double *k, const double *v,
                                       const SequenceLayout *queries, const SequenceLayout *keys, AttentionShape shape) {
    int64_t stride = shape.key_heads * shape.head_dimension;
    double *weights = calloc((size_t)keys->tokens + 1, sizeof *weights);
    for (int64_t s = 0; s < queries->sequences; ++s)
        for (int64_t i = 0; i < queries->host_offsets[s + 1] - queries->host_offsets[s]; ++i)
            for (int64_t h = 0; h < shape.query_heads; ++h) {
                Query query = find_query(queries, keys, shape, s, i, h);
                lse[query.row] = softmax_of(weights, &query, q, k, shape);
                for (int64_t e = 0; e < shape.head_dimension; ++e) {
                    out[query.at + e] = 0;
                    for (int64_t j = query.begin; j < query.end; ++j)
                        out[query.at + e] += weights[j] * v[j * stride + query.key_head + e];
                }
            }
    free(weights);
}

static void query_gradients(double *dq, double *dk, double *dv, const double *dout, const double *out, const double *q,
                            const double *k, const double *v, const Query *query, const double *weights, AttentionShape shape) {
    int64_t stride = shape.key_heads * shape.head_dimension;
    double dot = 0;
    for (int64_t e = query->at; e < query->at + shape.head_dimension; ++e) dot += dout[e] * out[e], dq[e] = 0;
    for (int64_t j = query->begin; j < query->end; ++j) {
        int64_t key = j * stride + query->key_head;
        double dweight = 0, dscore;
        for (int64_t e = 0; e < shape.head_dimension; ++e) dweight += dout[query->at + e] * v[key + e];
        dscore = weights[j] * (dweight - dot) * (double)shape.scale;
        for (int64_t e = 0; e < shape.head_dimension; ++e) {
            dq[query->at + e] += dscore * k[key + e];
            dk[key + e] += dscore * q[query->at + e];
            dv[key + e] += weights[j] * dout[query->at + e];
        }
    }
}

void reference_cross_attention_backward(double *dq, double *dk, double *dv, const double *dout, const double *out,
                                        const double *q, const double *k, const double *v, const SequenceLayout *queries,
                                        const SequenceLayout *keys, AttentionShape shape) {
    size_t bytes = (size_t)(keys->tokens * shape.key_heads * shape.head_dimension) * sizeof(double);
    double *weights = calloc((size_t)keys->tokens + 1, sizeof *weights);
    memset(dk, 0, bytes);
    memset(dv, 0, bytes);
    for (int64_t s = 0; s < queries->sequences; ++s)
        for (int64_t i = 0; i < queries->host_offsets[s + 1] - queries->host_offsets[s]; ++i)
            for (int64_t h = 0; h < shape.query_heads; ++h) {
                Query query = find_query(queries, keys, shape, s, i, h);
                softmax_of(weights, &query, q, k, shape);
                query_gradients(dq, dk, dv, dout, out, q, k, v, &query, weights, shape);
            }
    free(weights);
}

void reference_film_forward(double *y, const double *x, const double *modulation, int64_t place, const SequenceLayout *layout,
                            int64_t width, int64_t columns) {
    for (int64_t s = 0; s < layout->sequences; ++s)
        for (int64_t t = layout->host_offsets[s]; t < layout->host_offsets[s + 1]; ++t)
            for (int64_t i = 0; i < width; ++i) {
                double gamma = modulation[s * columns + 2 * place * width + i];
                double beta = modulation[s * columns + (2 * place + 1) * width + i];
                y[t * width + i] = (1 + gamma) * x[t * width + i] + beta;
            }
}

void reference_film_backward(double *dx, double *dmodulation, const double *dy, const double *x, const double *modulation,
                             int64_t place, const SequenceLayout *layout, int64_t width, int64_t columns) {
    for (int64_t s = 0; s < layout->sequences; ++s)
        for (int64_t t = layout->host_offsets[s]; t < layout->host_offsets[s + 1]; ++t)
            for (int64_t i = 0; i < width; ++i) {
                int64_t gamma = s * columns + 2 * place * width + i;
                dx[t * width + i] = (1 + modulation[gamma]) * dy[t * width + i];
                dmodulation[gamma] += dy[t * width + i] * x[t * width + i];
                dmodulation[gamma + width] += dy[t * width + i];
            }
}

void reference_segment_mean(double *y, const double *x, const SequenceLayout *layout, int64_t width) {
    for (int64_t s = 0; s < layout->sequences; ++s) {
        int64_t begin = layout->host_offsets[s], end = layout->host_offsets[s + 1];
        for (int64_t i = 0; i < width; ++i) {
            double sum = 0;
            for (int64_t t = begin; t < end; ++t) sum += x[t * width + i];
            y[s * width + i] = end > begin ? sum / (double)(end - begin) : 0;
        }
    }
}

/* log_p[v] = log softmax(weight hidden / temperature). */
static void log_softmax(double *log_p, const double *hidden, const double *weight, double temperature, int64_t width,
                        int64_t vocabulary) {
    double maximum = -INFINITY, sum = 0;
    for (int64_t v = 0; v < vocabulary; ++v) {
        double z = 0;
        for (int64_t i = 0; i < width; ++i) z += hidden[i] * weight[v * width + i];
        log_p[v] = z / temperature;
        maximum = fmax(maximum, log_p[v]);
    }
    for (int64_t v = 0; v < vocabulary; ++v) sum += exp(log_p[v] - maximum);
    for (int64_t v = 0; v < vocabulary; ++v) log_p[v] -= maximum + log(sum);
}

void reference_linear_distillation(double *nll, double *kl, double *dhidden, double *dweight, const ReferenceDistillation *d) {
    size_t words = (size_t)d->vocabulary;
    double *plain = calloc(3 * words + 1, sizeof *plain), *student = plain + words, *teacher = student + words;
    if (dhidden) memset(dhidden, 0, (size_t)(d->tokens * d->width) * sizeof *dhidden);
    if (dweight) memset(dweight, 0, words * (size_t)d->width * sizeof *dweight);
    for (int64_t n = 0; n < d->count; ++n) {
        const double *row = d->hidden + d->rows[n] * d->width;
        log_softmax(plain, row, d->weight, 1, d->width, d->vocabulary);
        log_softmax(student, row, d->weight, d->temperature, d->width, d->vocabulary);
        log_softmax(teacher, d->teacher + n * d->width, d->teacher_weight, d->temperature, d->width, d->vocabulary);
        nll[n] = -plain[d->labels[n]];
        kl[n] = 0;
        for (int64_t v = 0; v < d->vocabulary; ++v) {
            kl[n] += d->temperature * d->temperature * exp(teacher[v]) * (teacher[v] - student[v]);
            double dz = d->nll_scale * (exp(plain[v]) - (v == d->labels[n] ? 1 : 0)) +
                        d->kl_scale * d->temperature * (exp(student[v]) - exp(teacher[v]));
            for (int64_t i = 0; i < d->width; ++i) {
                if (dhidden) dhidden[d->rows[n] * d->width + i] += dz * d->weight[v * d->width + i];
                if (dweight) dweight[v * d->width + i] += dz * row[i];
            }
        }
    }
    free(plain);
}

static double dot(const double *a, const double *b, int64_t width) {
    double sum = 0;
    for (int64_t i = 0; i < width; ++i) sum += a[i] * b[i];
    return sum;
}

/* unit[i] = x[i] / |x[i]|. */
static void normalize(double *unit, const double *x, int64_t rows, int64_t width) {
    for (int64_t r = 0; r < rows; ++r) {
        double norm = sqrt(dot(x + r * width, x + r * width, width) + 1e-12);
        for (int64_t i = 0; i < width; ++i) unit[r * width + i] = x[r * width + i] / norm;
    }
}

/* dx = derivative with respect to x of what has the derivative g with respect to its unit vector. */
static void through_norm(double *dx, const double *g, const double *x, int64_t width) {
    double squares = dot(x, x, width) + 1e-12, norm = sqrt(squares), along = dot(g, x, width) / squares;
    for (int64_t i = 0; i < width; ++i) dx[i] = (g[i] - along * x[i]) / norm;
}

/* Softmax of row i of the similarities over the rows that count; returns the log of the sum of exponentials. similarity(i, j)
 * lies at [i * row + j * column]. */
static double contrast(double *p, const double *similarity, const int32_t *groups, int64_t i, int64_t rows, int64_t row,
                       int64_t column) {
    double maximum = -INFINITY, sum = 0;
    for (int64_t j = 0; j < rows; ++j) {
        bool counts = j == i || !groups || groups[i] != groups[j];
        p[j] = counts ? similarity[i * row + j * column] : -INFINITY;
        maximum = fmax(maximum, p[j]);
    }
    for (int64_t j = 0; j < rows; ++j) sum += exp(p[j] - maximum);
    for (int64_t j = 0; j < rows; ++j) p[j] = exp(p[j] - maximum) / sum;
    return maximum + log(sum);
}

/* gradient[i, j] += scale / 2 (p_j - [i = j]) for the rows, or the columns, of the similarities. */
static void contrast_all(double *loss, double *gradient, const double *similarity, const int32_t *groups, double scale,
                         int64_t rows, int64_t row, int64_t column) {
    double *p = calloc((size_t)rows + 1, sizeof *p);
    for (int64_t i = 0; i < rows; ++i) {
        loss[i] += 0.5 * (contrast(p, similarity, groups, i, rows, row, column) - similarity[i * rows + i]);
        for (int64_t j = 0; j < rows; ++j) gradient[i * row + j * column] += 0.5 * scale * (p[j] - (i == j ? 1 : 0));
    }
    free(p);
}

/* dx of `rows` rows whose unit vectors have the similarities a own_i . other_j, of gradient [i * row + j * column]. */
static void contrast_gradient(double *dx, const double *x, const double *others, const double *gradient, double a, int64_t rows,
                              int64_t width, int64_t row, int64_t column) {
    double *g = calloc((size_t)width + 1, sizeof *g);
    for (int64_t i = 0; i < rows; ++i) {
        memset(g, 0, (size_t)width * sizeof *g);
        for (int64_t j = 0; j < rows; ++j)
            for (int64_t c = 0; c < width; ++c) g[c] += a * gradient[i * row + j * column] * others[j * width + c];
        through_norm(dx + i * width, g, x + i * width, width);
    }
    free(g);
}

void reference_info_nce(double *loss, double *du, double *dv, double *dlog_scale, const double *u, const double *v,
                        double log_scale, const int32_t *groups, double scale, int64_t rows, int64_t width) {
    size_t elements = (size_t)(rows * width), pairs = (size_t)(rows * rows);
    double *unit_u = calloc(2 * elements + 2 * pairs + 1, sizeof *unit_u), *unit_v = unit_u + elements;
    double *similarity = unit_v + elements, *gradient = similarity + pairs;
    double a = fmin(exp(log_scale), (double)INFO_NCE_MOST_SCALE);
    normalize(unit_u, u, rows, width);
    normalize(unit_v, v, rows, width);
    for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < rows; ++j) similarity[i * rows + j] = a * dot(unit_u + i * width, unit_v + j * width, width);
    for (int64_t i = 0; i < rows; ++i) loss[i] = 0;
    contrast_all(loss, gradient, similarity, groups, scale, rows, rows, 1);
    contrast_all(loss, gradient, similarity, groups, scale, rows, 1, rows);
    if (du) contrast_gradient(du, u, unit_v, gradient, a, rows, width, rows, 1);
    if (dv) contrast_gradient(dv, v, unit_u, gradient, a, rows, width, 1, rows);
    if (dlog_scale) *dlog_scale = dot(gradient, similarity, rows * rows);
    free(unit_u);
}

void reference_diversity(double *loss, double *dz, const double *z, const SequenceLayout *layout, double scale, int64_t width) {
    double *unit = calloc((size_t)(layout->tokens * width + width) + 1, sizeof *unit), *g = unit + layout->tokens * width;
    normalize(unit, z, layout->tokens, width);
    for (int64_t s = 0; s < layout->sequences; ++s) {
        int64_t begin = layout->host_offsets[s], end = layout->host_offsets[s + 1];
        double pairs = (double)(end - begin) * (double)(end - begin - 1);
        loss[s] = 0;
        for (int64_t i = begin; i < end; ++i) {
            memset(g, 0, (size_t)width * sizeof *g);
            for (int64_t j = begin; j < end; ++j) {
                double cosine = dot(unit + i * width, unit + j * width, width);
                if (i != j) loss[s] += cosine * cosine / pairs;
                for (int64_t c = 0; c < width && i != j; ++c) g[c] += 4 * scale / pairs * cosine * unit[j * width + c];
            }
            if (dz) through_norm(dz + i * width, g, z + i * width, width);
        }
    }
    free(unit);
}
