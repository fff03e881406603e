#include "trainer/metrics/bertscore_internal.h"

#include "io/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct KnownLayer {
    const char *name; /* without the organisation */
    int64_t layer;
} KnownLayer;

/* What the package found to agree best with people's judgements (WMT16), for the families that are computed here. */
static const KnownLayer known_layers[] = {
    {"bert-base-uncased", 9},
    {"bert-large-uncased", 18},
    {"bert-base-cased-finetuned-mrpc", 9},
    {"bert-base-multilingual-cased", 9},
    {"bert-base-chinese", 8},
    {"roberta-base", 10},
    {"roberta-large", 17},
    {"roberta-large-mnli", 19},
    {"roberta-base-openai-detector", 7},
    {"roberta-large-openai-detector", 15},
    {"distilroberta-base", 5},
    {"scibert_scivocab_uncased", 8},
    {"scibert_scivocab_cased", 9},
    {"scibert_basevocab_uncased", 9},
    {"bert_uncased_L-2_H-128_A-2", 1},
    {"bert_uncased_L-2_H-256_A-4", 1},
    {"bert_uncased_L-2_H-512_A-8", 1},
    {"bert_uncased_L-2_H-768_A-12", 2},
    {"bert_uncased_L-4_H-128_A-2", 3},
    {"bert_uncased_L-4_H-256_A-4", 3},
    {"bert_uncased_L-4_H-512_A-8", 3},
    {"bert_uncased_L-4_H-768_A-12", 3},
    {"bert_uncased_L-6_H-128_A-2", 5},
    {"bert_uncased_L-6_H-256_A-4", 5},
    {"bert_uncased_L-6_H-512_A-8", 5},
    {"bert_uncased_L-6_H-768_A-12", 5},
    {"bert_uncased_L-8_H-128_A-2", 7},
    {"bert_uncased_L-8_H-256_A-4", 7},
    {"bert_uncased_L-8_H-512_A-8", 6},
    {"bert_uncased_L-8_H-768_A-12", 7},
    {"bert_uncased_L-10_H-128_A-2", 8},
    {"bert_uncased_L-10_H-256_A-4", 8},
    {"bert_uncased_L-10_H-512_A-8", 9},
    {"bert_uncased_L-10_H-768_A-12", 8},
    {"bert_uncased_L-12_H-128_A-2", 10},
    {"bert_uncased_L-12_H-256_A-4", 11},
    {"bert_uncased_L-12_H-512_A-8", 10},
    {"bert_uncased_L-12_H-768_A-12", 9},
    {"bart-base", 6},
    {"bart-large", 10},
    {"bart-large-cnn", 10},
    {"bart-large-mnli", 11},
    {"bart-large-xsum", 9},
    {"spanbert-base-cased", 8},
    {"spanbert-large-cased", 17},
    {"finbert", 10},
    {"unsup-simcse-bert-base-uncased", 10},
    {"unsup-simcse-bert-large-uncased", 18},
    {"unsup-simcse-roberta-base", 8},
    {"unsup-simcse-roberta-large", 13},
    {"sup-simcse-bert-base-uncased", 10},
    {"sup-simcse-bert-large-uncased", 18},
    {"sup-simcse-roberta-base", 10},
    {"sup-simcse-roberta-large", 16},
    {"bert-base-turkish-cased", 10},
};

int64_t bertscore_known_layer(const char *name) {
    size_t end = strlen(name);
    while (end && name[end - 1] == '/') --end;
    size_t start = end;
    while (start && name[start - 1] != '/') --start;
    for (size_t i = 0; i < sizeof known_layers / sizeof *known_layers; ++i)
        if (strlen(known_layers[i].name) == end - start && !memcmp(known_layers[i].name, name + start, end - start))
            return known_layers[i].layer;
    return -1;
}

/* LAYER,P,R,F as numbers, and nothing behind them. */
static bool parse_line(const char *line, double values[4]) {
    for (int i = 0; i < 4; ++i) {
        char *end;
        values[i] = strtod(line, &end);
        if (end == line || (i < 3 && *end != ',' && *end != '\t')) return false;
        line = i < 3 ? end + 1 : end;
    }
    return *line == 0 || *line == '\r';
}

Status bertscore_read_baseline(const char *path, int64_t layer, double baseline[3]) {
    Text text = {0};
    double values[4];
    int64_t number = 0;
    Status status = file_read(path, &text);
    for (char *line = text.data, *next; line && *line && !status; line = next) {
        char *end = strchr(line, '\n');
        next = end ? end + 1 : NULL;
        if (end) *end = 0;
        if (++number == 1) continue; /* names of the columns */
        if (!parse_line(line, values) || values[0] != (double)(number - 2))
            status = INVALID_INPUT("%s:%lld: not a baseline of layer %lld: LAYER,P,R,F", path, (long long)number,
                                   (long long)number - 2);
        else if (number - 2 == layer)
            break;
    }
    if (!status && number - 2 != layer) status = INVALID_INPUT("%s: has no line for layer %lld", path, (long long)layer);
    for (int i = 0; i < 3 && !status; ++i) {
        baseline[i] = values[i + 1];
        if (!(baseline[i] < 1)) status = INVALID_INPUT("%s:%lld: a baseline must be below 1", path, (long long)number);
    }
    text_free(&text);
    return status;
}
