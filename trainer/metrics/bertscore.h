/* BERTScore (Zhang et al. 2020, arXiv:1904.09675) as the bert-score package 0.3.13 computes it: every token of the
 * prediction is matched with the most similar token of the reference (cosine of hidden states of one encoder layer), and
 * the other way round; the weighted means are precision and recall.
 *
 * The encoder and its tokenizer come from a Hugging Face directory of the bert, roberta or bart family. One difference: where
 * all similarities of a token are negative, which trained models never show, the package counts 0 if a longer text is in its
 * padded batch; here nothing is padded, and the largest counts. */
#ifndef TRAINER_METRICS_BERTSCORE_H
#define TRAINER_METRICS_BERTSCORE_H

#include "kernels/device.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct BertscoreSettings {
    int64_t num_layers;        /* layers of the encoder that are run; -1: the package's choice, by the model's name, which is
                                  the end of the directory's path or config.json's _name_or_path */
    bool idf;                  /* weigh tokens by inverse document frequency among the references */
    const char *baseline_path; /* rescale with this baseline (CSV: LAYER,P,R,F and one line per layer); NULL: do not */
} BertscoreSettings;

typedef struct BertscoreResult {
    double precision, recall, f1;
    bool empty;      /* prediction or reference has no token: all are 0 (before rescaling), as in the package */
    bool weightless; /* no token of one side has any weight (by idf): its mean and f1 are 0 (the package: NaN and 0) */
} BertscoreResult;

typedef struct Bertscore Bertscore;

/* Reads config.json, the weights and the tokenizer onto device, which is borrowed. Missing files and tensors, another
 * model_type, a layer the model or the baseline does not have, and a model without a known choice of layer are
 * STATUS_INVALID naming file or key. */
Status bertscore_open(const char *model_directory, const BertscoreSettings *settings, Device *device, Bertscore **out);
void bertscore_close(Bertscore *bertscore); /* accepts NULL */
/* The number of layers that are run. */
int64_t bertscore_layers(const Bertscore *bertscore);
/* out[count]: predictions[i] against references[i] (UTF-8, NUL-terminated). For several references give one pair for each:
 * idf counts every reference given. Texts longer than the encoder's window are cut, as in the package. Memory for hidden
 * states is bounded whatever count is; equal texts that stand near each other are encoded once. Invalid UTF-8 is
 * STATUS_INVALID naming the pair. */
Status bertscore_pairs(Bertscore *bertscore, const char *const *predictions, const char *const *references, int64_t count,
                       BertscoreResult *out);

#endif
