#include "trainer/metrics/bertscore_internal.h"

#include <math.h>

static float dot(const float *a, const float *b, int64_t width) {
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < width; ++i) sum += a[i] * b[i];
    return sum;
}

void bertscore_normalize(float *rows, int64_t count, int64_t width) {
    for (int64_t t = 0; t < count; ++t) {
        float *row = rows + t * width, squares = dot(row, row, width);
        if (squares == 0.0f) continue;
        float scale = 1.0f / sqrtf(squares);
        for (int64_t i = 0; i < width; ++i) row[i] *= scale;
    }
}

/* Weighted mean of the best similarities of one side. */
typedef struct WeightedSum {
    double sum, weight;
} WeightedSum;

static void add_weighted(WeightedSum *mean, float weight, float best) {
    mean->sum += (double)weight * (double)best;
    mean->weight += (double)weight;
}

/* The first and the last token have no weight of their own, but are there to be matched with: so does the package. */
BertscoreResult bertscore_match(BertscoreSide prediction, BertscoreSide reference, int64_t width, const float *weights,
                                float *best) {
    WeightedSum precision = {0}, recall = {0};
    BertscoreResult result = {.empty = prediction.tokens == 2 || reference.tokens == 2};
    if (result.empty) return result;
    for (int64_t j = 0; j < reference.tokens; ++j) best[j] = -INFINITY;
    for (int64_t i = 0; i < prediction.tokens; ++i) {
        float best_of_row = -INFINITY;
        for (int64_t j = 0; j < reference.tokens; ++j) {
            float similarity = dot(prediction.rows + i * width, reference.rows + j * width, width);
            if (similarity > best_of_row) best_of_row = similarity;
            if (similarity > best[j]) best[j] = similarity;
        }
        add_weighted(&precision, weights[prediction.ids[i]], best_of_row);
    }
    for (int64_t j = 0; j < reference.tokens; ++j) add_weighted(&recall, weights[reference.ids[j]], best[j]);
    result.weightless = precision.weight == 0 || recall.weight == 0;
    if (precision.weight != 0) result.precision = precision.sum / precision.weight;
    if (recall.weight != 0) result.recall = recall.sum / recall.weight;
    double sum = result.precision + result.recall;
    if (!result.weightless && sum != 0) result.f1 = 2 * result.precision * result.recall / sum;
    return result;
}
