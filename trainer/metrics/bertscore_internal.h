/* The parts of BERTScore; private to trainer/metrics/bertscore*.c.
 *
 *   bertscore_settings.c  the package's choice of layer, baseline files
 *   bertscore_texts.c     distinct texts as token ids, weights of tokens
 *   bertscore_match.c     greedy matching of one pair
 *   bertscore.c           encoding in bounded memory, the whole */
#ifndef TRAINER_METRICS_BERTSCORE_INTERNAL_H
#define TRAINER_METRICS_BERTSCORE_INTERNAL_H

#include "io/encoder_tokenizer.h"
#include "model/encoder.h"
#include "trainer/metrics/bertscore.h"

struct Bertscore {
    Device *device; /* borrowed */
    Encoder *encoder;
    EncoderTokenizer *tokenizer;
    int64_t max_length;   /* tokens of a text, special ones included */
    int64_t window_bytes; /* of hidden states held at a time */
    bool prefix_space;
    bool idf, rescale;
    double baseline[3]; /* of precision, recall, f1 */
};

/* The layer that the package takes for a model of this name ("org/name", a path, or the name alone); -1: none is known. */
int64_t bertscore_known_layer(const char *name);
/* The line of a layer in a baseline file. STATUS_INVALID names file and line. */
Status bertscore_read_baseline(const char *path, int64_t layer, double baseline[3]);

/* Every distinct text once. */
typedef struct BertscoreTexts {
    TokenList ids;
    int64_t *starts; /* [count + 1] into ids */
    int64_t count;
    int64_t *prediction_of, *reference_of; /* [pairs] numbers of texts */
    float *weights;                        /* [vocabulary] of tokens */
} BertscoreTexts;

Status bertscore_texts_make(const Bertscore *bertscore, const char *const *predictions, const char *const *references,
                            int64_t pairs, BertscoreTexts *out);
void bertscore_texts_free(BertscoreTexts *texts);

/* One side of a pair: rows of unit length, [tokens, width], and the tokens' ids. */
typedef struct BertscoreSide {
    const float *rows;
    const int32_t *ids;
    int64_t tokens;
} BertscoreSide;

/* Scales every row to unit length. A row of zeros stays as it is. */
void bertscore_normalize(float *rows, int64_t count, int64_t width);
/* Without rescaling. best: [reference.tokens] scratch. */
BertscoreResult bertscore_match(BertscoreSide prediction, BertscoreSide reference, int64_t width, const float *weights,
                                float *best);

#endif
