#include "tests/ops/reference.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void reference_matmul(double *c, const double *a, bool transpose_a, const double *b, bool transpose_b, const double *bias,
                      double alpha, double beta, int64_t m, int64_t n, int64_t k) {
    for (int64_t i = 0; i < m; ++i)
        for (int64_t j = 0; j < n; ++j) {
            double sum = 0;
            for (int64_t p = 0; p < k; ++p)
                sum += (transpose_a ? a[p * m + i] : a[i * k + p]) * (transpose_b ? b[j * k + p] : b[p * n + j]);
            c[i * n + j] = alpha * sum + (beta != 0 ? beta * c[i * n + j] : 0) + (bias ? bias[j] : 0);
        }
}

static double row_rstd(const double *x, int64_t width, double epsilon) {
    double squares = 0;
    for (int64_t i = 0; i < width; ++i) squares += x[i] * x[i];
    return 1 / sqrt(squares / (double)width + epsilon);
}

void reference_rms_norm_forward(double *y, double *rstd, const double *x, const double *weight, double epsilon, int64_t rows,
                                int64_t width) {
    for (int64_t t = 0; t < rows; ++t) {
        rstd[t] = row_rstd(x + t * width, width, epsilon);
        for (int64_t i = 0; i < width; ++i) y[t * width + i] = x[t * width + i] * rstd[t] * weight[i];
    }
}

void reference_rms_norm_backward(double *dx, double *dweight, const double *dy, const double *x, const double *weight,
                                 double epsilon, int64_t rows, int64_t width) {
    for (int64_t i = 0; i < width; ++i) dweight[i] = 0;
    for (int64_t t = 0; t < rows; ++t) {
        const double *g = dy + t * width, *row = x + t * width;
        double rstd = row_rstd(row, width, epsilon), mean = 0;
        for (int64_t i = 0; i < width; ++i) mean += g[i] * weight[i] * row[i] * rstd / (double)width;
        for (int64_t i = 0; i < width; ++i) {
            dx[t * width + i] = rstd * (g[i] * weight[i] - row[i] * rstd * mean);
            dweight[i] += g[i] * row[i] * rstd;
        }
    }
}

void reference_rope_table(double *cos_sin, const int32_t *positions, double theta, int64_t tokens, int64_t width) {
    for (int64_t t = 0; t < tokens; ++t)
        for (int64_t i = 0; i < width / 2; ++i) {
            double angle = positions[t] * pow(theta, -2.0 * (double)i / (double)width);
            cos_sin[t * width + i] = cos(angle);
            cos_sin[t * width + width / 2 + i] = sin(angle);
        }
}

void reference_rope(double *y, const double *x, const double *cos_sin, bool inverse, int64_t tokens, int64_t heads,
                    int64_t width) {
    int64_t half = width / 2;
    for (int64_t t = 0; t < tokens; ++t)
        for (int64_t h = 0; h < heads; ++h)
            for (int64_t i = 0; i < half; ++i) {
                int64_t at = (t * heads + h) * width + i;
                double c = cos_sin[t * width + i], s = cos_sin[t * width + half + i] * (inverse ? -1 : 1);
                double x1 = x[at], x2 = x[at + half];
                y[at] = x1 * c - x2 * s;
                y[at + half] = x2 * c + x1 * s;
            }
}

/* Softmax of one query over its keys: weights[j] for j in begin..end-1, returns the log of the sum of exponentials. */
static double query_weights(double *weights, const double *q, const double *k, int64_t begin, int64_t end, int64_t stride,
                            AttentionShape shape) {
    double maximum = -INFINITY, sum = 0;
    for (int64_t j = begin; j < end; ++j) {
        double score = 0;
        for (int64_t e = 0; e < shape.head_dimension; ++e) score += q[e] * k[j * stride + e];
        weights[j] = score * (double)shape.scale;
        maximum = fmax(maximum, weights[j]);
    }
    for (int64_t j = begin; j < end; ++j) sum += exp(weights[j] - maximum);
    for (int64_t j = begin; j < end; ++j) weights[j] = exp(weights[j] - maximum) / sum;
    return maximum + log(sum);
}

void reference_attention_forward(double *out, double *lse, const double *q, const double *k, const double *v,
                                 const SequenceLayout *layout, AttentionShape shape) {
    int64_t heads = shape.query_heads, groups = shape.key_heads, width = shape.head_dimension, stride = groups * width;
    double *weights = calloc((size_t)layout->tokens + 1, sizeof *weights);
    for (int64_t s = 0; s < layout->sequences; ++s)
        for (int64_t i = layout->host_offsets[s]; i < layout->host_offsets[s + 1]; ++i)
            for (int64_t h = 0; h < heads; ++h) {
                int64_t begin = layout->host_offsets[s], end = shape.causal ? i + 1 : layout->host_offsets[s + 1];
                int64_t key_head = h / (heads / groups) * width, at = (i * heads + h) * width;
                lse[h * layout->tokens + i] = query_weights(weights, q + at, k + key_head, begin, end, stride, shape);
                for (int64_t e = 0; e < width; ++e) {
                    out[at + e] = 0;
                    for (int64_t j = begin; j < end; ++j) out[at + e] += weights[j] * v[j * stride + key_head + e];
                }
            }
    free(weights);
}

static void query_gradients(double *dq, double *dk, double *dv, const double *dout, const double *out, const double *q,
                            const double *k, const double *v, double *weights, double *dweights, int64_t begin, int64_t end,
                            int64_t stride, AttentionShape shape) {
    double dot = 0;
    query_weights(weights, q, k, begin, end, stride, shape);
    for (int64_t j = begin; j < end; ++j) {
        dweights[j] = 0;
        for (int64_t e = 0; e < shape.head_dimension; ++e) dweights[j] += dout[e] * v[j * stride + e];
    }
    for (int64_t e = 0; e < shape.head_dimension; ++e) {
        dot += dout[e] * out[e];
        dq[e] = 0;
    }
    for (int64_t j = begin; j < end; ++j) {
        double dscore = weights[j] * (dweights[j] - dot) * (double)shape.scale;
        for (int64_t e = 0; e < shape.head_dimension; ++e) {
            dq[e] += dscore * k[j * stride + e];
            dk[j * stride + e] += dscore * q[e];
            dv[j * stride + e] += weights[j] * dout[e];
        }
    }
}

void reference_attention_backward(double *dq, double *dk, double *dv, const double *dout, const double *out, const double *q,
                                  const double *k, const double *v, const SequenceLayout *layout, AttentionShape shape) {
    int64_t heads = shape.query_heads, groups = shape.key_heads, width = shape.head_dimension, stride = groups * width;
    double *weights = calloc(2 * (size_t)layout->tokens + 1, sizeof *weights), *dweights = weights + layout->tokens;
    memset(dk, 0, (size_t)(layout->tokens * stride) * sizeof *dk);
    memset(dv, 0, (size_t)(layout->tokens * stride) * sizeof *dv);
    for (int64_t s = 0; s < layout->sequences; ++s)
        for (int64_t i = layout->host_offsets[s]; i < layout->host_offsets[s + 1]; ++i)
            for (int64_t h = 0; h < heads; ++h) {
                int64_t end = shape.causal ? i + 1 : layout->host_offsets[s + 1];
                int64_t key_head = h / (heads / groups) * width, at = (i * heads + h) * width;
                query_gradients(dq + at, dk + key_head, dv + key_head, dout + at, out + at, q + at, k + key_head, v + key_head,
                                weights, dweights, layout->host_offsets[s], end, stride, shape);
            }
    free(weights);
}

void reference_swiglu_forward(double *y, const double *gate, const double *up, int64_t count) {
    for (int64_t i = 0; i < count; ++i) y[i] = gate[i] / (1 + exp(-gate[i])) * up[i];
}

void reference_swiglu_backward(double *dgate, double *dup, const double *dy, const double *gate, const double *up,
                               int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
        double s = 1 / (1 + exp(-gate[i]));
        dgate[i] = dy[i] * up[i] * s * (1 + gate[i] * (1 - s));
        dup[i] = dy[i] * gate[i] * s;
    }
}

void reference_gelu_forward(double *y, const double *x, int64_t count) {
    for (int64_t i = 0; i < count; ++i) y[i] = x[i] * 0.5 * erfc(-x[i] / sqrt(2.0));
}

void reference_gelu_backward(double *dx, const double *dy, const double *x, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
        double density = exp(-0.5 * x[i] * x[i]) / sqrt(2 * acos(-1.0));
        dx[i] = dy[i] * (0.5 * erfc(-x[i] / sqrt(2.0)) + x[i] * density);
    }
}

void reference_layer_norm_forward(double *y, const double *x, const double *weight, const double *bias, double epsilon,
                                  int64_t rows, int64_t width) {
    for (int64_t t = 0; t < rows; ++t) {
        const double *row = x + t * width;
        double mean = 0, variance = 0;
        for (int64_t i = 0; i < width; ++i) mean += row[i] / (double)width;
        for (int64_t i = 0; i < width; ++i) variance += (row[i] - mean) * (row[i] - mean) / (double)width;
        for (int64_t i = 0; i < width; ++i) y[t * width + i] = (row[i] - mean) / sqrt(variance + epsilon) * weight[i] + bias[i];
    }
}

/* Fills probability and returns the loss of one row. */
static double row_cross_entropy(double *probability, const double *hidden, const double *weight, int32_t label, double smoothing,
                                int64_t width, int64_t vocabulary) {
    double maximum = -INFINITY, sum = 0, mean = 0;
    for (int64_t v = 0; v < vocabulary; ++v) {
        double z = 0;
        for (int64_t i = 0; i < width; ++i) z += hidden[i] * weight[v * width + i];
        probability[v] = z;
        mean += z / (double)vocabulary;
        maximum = fmax(maximum, z);
    }
    double z_label = probability[label];
    for (int64_t v = 0; v < vocabulary; ++v) sum += exp(probability[v] - maximum);
    for (int64_t v = 0; v < vocabulary; ++v) probability[v] = exp(probability[v] - maximum) / sum;
    return maximum + log(sum) - ((1 - smoothing) * z_label + smoothing * mean);
}

void reference_linear_cross_entropy(double *nll, double *dhidden, double *dweight, const double *hidden, const double *weight,
                                    const int32_t *rows, const int32_t *labels, double smoothing, double scale, int64_t count,
                                    int64_t tokens, int64_t width, int64_t vocabulary, ReferenceLossTerms terms) {
    double *gradient = calloc((size_t)vocabulary, sizeof *gradient);
    if (dhidden) memset(dhidden, 0, (size_t)(tokens * width) * sizeof *dhidden);
    if (dweight) memset(dweight, 0, (size_t)(vocabulary * width) * sizeof *dweight);
    for (int64_t n = 0; n < count; ++n) {
        const double *row = hidden + rows[n] * width;
        nll[n] = row_cross_entropy(gradient, row, weight, labels[n], smoothing, width, vocabulary);
        for (int64_t v = 0; v < vocabulary; ++v) {
            double target = (v == labels[n] ? 1 - smoothing : 0) + smoothing / (double)vocabulary;
            double dz = scale * (terms.row_weight ? terms.row_weight[n] : 1) * (gradient[v] - target);
            /* d log p(token) / dz_v = 1[v = token] - p(v) */
            for (int32_t k = terms.offsets ? terms.offsets[n] : 0; terms.offsets && k < terms.offsets[n + 1]; ++k)
                dz += terms.derivative[k] * ((v == terms.tokens[k]) - gradient[v]);
            for (int64_t i = 0; i < width; ++i) {
                if (dhidden) dhidden[rows[n] * width + i] += dz * weight[v * width + i];
                if (dweight) dweight[v * width + i] += dz * row[i];
            }
        }
    }
    free(gradient);
}

void reference_token_log_probabilities(double *log_p, const double *hidden, const double *weight, const int32_t *rows,
                                       const int32_t *offsets, const int32_t *tokens, int64_t count, int64_t width,
                                       int64_t vocabulary) {
    double *probability = calloc((size_t)vocabulary, sizeof *probability);
    for (int64_t n = 0; n < count; ++n)
        for (int32_t k = offsets[n]; k < offsets[n + 1]; ++k)
            log_p[k] = -row_cross_entropy(probability, hidden + rows[n] * width, weight, tokens[k], 0, width, vocabulary);
    free(probability);
}

void reference_philox(uint32_t c[4], uint32_t key0, uint32_t key1) {
    for (int round = 0; round < 10; ++round) {
        uint64_t a = (uint64_t)0xD2511F53 * c[0], b = (uint64_t)0xCD9E8D57 * c[2];
        uint32_t next[4] = {(uint32_t)(b >> 32) ^ c[1] ^ key0, (uint32_t)b, (uint32_t)(a >> 32) ^ c[3] ^ key1, (uint32_t)a};
        memcpy(c, next, sizeof next);
        key0 += 0x9E3779B9;
        key1 += 0xBB67AE85;
    }
}

bool reference_dropout_keeps(const SequenceLayout *layout, Dropout dropout, int64_t token, int64_t channel) {
    uint32_t words[4] = {(uint32_t)(channel / 8), (uint32_t)layout->positions[token], (uint32_t)layout->sample_of_token[token],
                         dropout.step};
    reference_philox(words, (uint32_t)dropout.seed, (uint32_t)(dropout.seed >> 32) ^ dropout.input_id);
    int64_t piece = channel % 8;
    uint32_t bits = piece % 2 ? words[piece / 2] >> 16 : words[piece / 2] & 0xffff;
    return bits >= (uint32_t)lround((double)dropout.p * 65536);
}

/* What dropout multiplies the channels of a token by. */
static void factors_of(double *factor, const SequenceLayout *layout, Dropout dropout, int64_t token, int64_t width) {
    double scale = 65536.0 / (65536.0 - (double)lround((double)dropout.p * 65536));
    for (int64_t c = 0; c < width; ++c) factor[c] = reference_dropout_keeps(layout, dropout, token, c) ? scale : 0.0;
}

void reference_lora_down(double *p, const double *x, const double *a, LoraStack stack, const SequenceLayout *layout,
                         Dropout dropout, int64_t width) {
    double *factor = calloc((size_t)width + 1, sizeof *factor);
    for (int64_t t = 0; t < layout->tokens; ++t) {
        const double *row = a;
        double *matrix = p;
        factors_of(factor, layout, dropout, t, width);
        for (int i = 0; i < stack.count; matrix += layout->tokens * stack.ranks[i++])
            for (int64_t r = 0; r < stack.ranks[i]; ++r, row += width) {
                double sum = 0;
                for (int64_t c = 0; c < width; ++c)
                    if (factor[c] != 0) sum += factor[c] * x[t * width + c] * row[c];
                matrix[t * stack.ranks[i] + r] = sum;
            }
    }
    free(factor);
}

void reference_lora_down_backward(double *da, double *dx, const double *q, const double *x, const double *a, LoraStack stack,
                                  const SequenceLayout *layout, Dropout dropout, int64_t width) {
    double *factor = calloc((size_t)width + 1, sizeof *factor);
    for (int64_t t = 0; t < layout->tokens; ++t) {
        const double *matrix = q;
        int64_t row = 0;
        factors_of(factor, layout, dropout, t, width);
        for (int i = 0; i < stack.count; matrix += layout->tokens * stack.ranks[i++])
            for (int64_t r = 0; r < stack.ranks[i]; ++r, row += width)
                for (int64_t c = 0; c < width; ++c) {
                    double upstream = matrix[t * stack.ranks[i] + r] * factor[c];
                    da[row + c] += upstream * x[t * width + c];
                    dx[t * width + c] += upstream * a[row + c];
                }
    }
    free(factor);
}

void reference_adamw(double *parameter, double *exp_avg, double *exp_avg_sq, const double *gradient, AdamWSettings s,
                     int64_t count) {
    double correction1 = 1 - pow(s.beta1, (double)s.update), correction2 = 1 - pow(s.beta2, (double)s.update);
    for (int64_t i = 0; i < count; ++i) {
        double g = gradient[i] * (double)s.gradient_scale;
        parameter[i] -= (double)s.learning_rate * (double)s.weight_decay * parameter[i];
        exp_avg[i] = s.beta1 * exp_avg[i] + (1 - s.beta1) * g;
        exp_avg_sq[i] = s.beta2 * exp_avg_sq[i] + (1 - s.beta2) * g * g;
        parameter[i] -=
            (double)s.learning_rate * (exp_avg[i] / correction1) / (sqrt(exp_avg_sq[i] / correction2) + (double)s.epsilon);
    }
}
