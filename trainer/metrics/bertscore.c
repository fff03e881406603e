/* Encoding in windows of pairs whose distinct texts fit a fixed number of bytes, in batches of similar length. */
#include "trainer/metrics/bertscore_internal.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH_TOKENS = 4096 };
static const int64_t default_window_bytes = (int64_t)256 << 20;

static Status choose_layer(const char *directory, const BertscoreSettings *settings, const EncoderConfig *config, int64_t *out) {
    *out = settings->num_layers;
    if (*out >= 0) return STATUS_OK;
    *out = bertscore_known_layer(directory);
    if (*out < 0) *out = bertscore_known_layer(config->name);
    if (*out < 0)
        INVALID("%s: which layer BERTScore should take of this model is not known (its name is none of the bert-score package's "
                "list); give the number of layers, 1 to %lld",
                directory, (long long)config->num_hidden_layers);
    return STATUS_OK;
}

static Status open_bertscore(Bertscore *b, const char *directory, const BertscoreSettings *settings) {
    EncoderConfig config;
    int64_t layer;
    TRY(encoder_config_read(directory, &config));
    TRY(choose_layer(directory, settings, &config, &layer));
    bool wordpiece = config.family == ENCODER_BERT;
    TRY(encoder_tokenizer_load(directory, wordpiece ? ENCODER_TOKENIZER_WORDPIECE : ENCODER_TOKENIZER_BYTE_LEVEL, &b->tokenizer));
    if (encoder_tokenizer_size(b->tokenizer) > config.vocab_size)
        INVALID("%s: the tokenizer has %d ids, config.json says vocab_size %lld", directory, encoder_tokenizer_size(b->tokenizer),
                (long long)config.vocab_size);
    int64_t window = encoder_config_window(&config), limit = encoder_tokenizer_max_length(b->tokenizer);
    b->max_length = limit < window ? limit : window;
    b->prefix_space = config.family == ENCODER_ROBERTA || encoder_tokenizer_prefix_space(b->tokenizer);
    b->window_bytes = default_window_bytes;
    b->idf = settings->idf;
    b->rescale = settings->baseline_path != NULL;
    if (b->rescale) TRY(bertscore_read_baseline(settings->baseline_path, layer, b->baseline));
    return encoder_open(directory, layer, window > BATCH_TOKENS ? window : BATCH_TOKENS, b->device, &b->encoder);
}

Status bertscore_open(const char *model_directory, const BertscoreSettings *settings, Device *device, Bertscore **out) {
    Bertscore *b;
    TRY_ALLOC(b = calloc(1, sizeof *b));
    b->device = device;
    Status status = open_bertscore(b, model_directory, settings);
    if (status)
        bertscore_close(b);
    else
        *out = b;
    return status;
}

void bertscore_close(Bertscore *b) {
    if (!b) return;
    encoder_close(b->encoder);
    encoder_tokenizer_free(b->tokenizer);
    free(b);
}

int64_t bertscore_layers(const Bertscore *b) { return b->encoder->count; }

/* --- one window --- */

typedef struct Window {
    const BertscoreTexts *texts;
    int64_t *members; /* texts of this window, longest first */
    int64_t count, tokens, capacity;
    int64_t *place; /* [texts] first row of a text's hidden states; -1: not in the window */
    float *hidden;  /* [capacity, width] */
    float *best;    /* [threads, longest text] */
} Window;

static int64_t text_tokens(const BertscoreTexts *texts, int64_t text) { return texts->starts[text + 1] - texts->starts[text]; }

static void window_add(Window *w, int64_t text) {
    if (w->place[text] >= 0) return;
    w->place[text] = 0;
    w->members[w->count++] = text;
    w->tokens += text_tokens(w->texts, text);
}

/* Takes pairs from first on while they fit; returns the end. One pair always fits. */
static int64_t fill_window(Window *w, int64_t first, int64_t pairs) {
    int64_t end = first;
    for (int64_t i = 0; i < w->count; ++i) w->place[w->members[i]] = -1;
    w->count = w->tokens = 0;
    for (; end < pairs; ++end) {
        int64_t a = w->texts->prediction_of[end], b = w->texts->reference_of[end], more = 0;
        if (w->place[a] < 0) more += text_tokens(w->texts, a);
        if (w->place[b] < 0 && b != a) more += text_tokens(w->texts, b);
        if (w->tokens + more > w->capacity) break;
        window_add(w, a);
        window_add(w, b);
    }
    return end;
}

/* (length, number): longer first, then the smaller number. */
static int compare_keys(const void *a, const void *b) {
    const int64_t *x = a, *y = b;
    return x[0] != y[0] ? (x[0] < y[0]) - (x[0] > y[0]) : (x[1] > y[1]) - (x[1] < y[1]);
}

static Status sort_by_length(Window *w) {
    int64_t *keys;
    TRY_ALLOC(keys = malloc((size_t)w->count * 2 * sizeof *keys));
    for (int64_t i = 0; i < w->count; ++i) {
        keys[2 * i] = text_tokens(w->texts, w->members[i]);
        keys[2 * i + 1] = w->members[i];
    }
    qsort(keys, (size_t)w->count, 2 * sizeof *keys, compare_keys);
    for (int64_t i = 0; i < w->count; ++i) w->members[i] = keys[2 * i + 1];
    free(keys);
    return STATUS_OK;
}

/* Encodes members[first ..) as far as one batch takes them, into rows from *row on; *next is the first not taken. */
static Status encode_batch(const Bertscore *b, Window *w, int64_t first, int32_t *ids, int32_t *offsets, int64_t *row,
                           int64_t *next) {
    int64_t sequences = 0, tokens = 0;
    for (*next = first; *next < w->count; ++*next) {
        int64_t text = w->members[*next], length = text_tokens(w->texts, text);
        if (tokens + length > b->encoder->capacity) break;
        w->place[text] = *row + tokens;
        memcpy(ids + tokens, w->texts->ids.ids + w->texts->starts[text], (size_t)length * sizeof *ids);
        offsets[sequences++] = (int32_t)tokens;
        tokens += length;
    }
    offsets[sequences] = (int32_t)tokens;
    float *hidden = w->hidden + *row * b->encoder->config.hidden_size;
    *row += tokens;
    return encoder_run(b->encoder, ids, offsets, sequences, hidden);
}

static Status encode_window(const Bertscore *b, Window *w) {
    int64_t width = b->encoder->config.hidden_size, row = 0;
    int32_t *ids, *offsets;
    TRY_ALLOC(ids = malloc((size_t)(2 * b->encoder->capacity + 1) * sizeof *ids));
    offsets = ids + b->encoder->capacity;
    Status status = sort_by_length(w);
    for (int64_t first = 0; first < w->count && !status;) status = encode_batch(b, w, first, ids, offsets, &row, &first);
    free(ids);
    if (status) return status;
#pragma omp parallel for schedule(static) num_threads(b->device->threads)
    for (int64_t t = 0; t < w->tokens; ++t) bertscore_normalize(w->hidden + t * width, 1, width);
    return STATUS_OK;
}

static BertscoreSide side_of(const Window *w, int64_t text, int64_t width) {
    const BertscoreTexts *texts = w->texts;
    return (BertscoreSide){w->hidden + w->place[text] * width, texts->ids.ids + texts->starts[text], text_tokens(texts, text)};
}

static void rescale(const Bertscore *b, BertscoreResult *result) {
    result->precision = (result->precision - b->baseline[0]) / (1 - b->baseline[0]);
    result->recall = (result->recall - b->baseline[1]) / (1 - b->baseline[1]);
    result->f1 = (result->f1 - b->baseline[2]) / (1 - b->baseline[2]);
}

static void match_window(const Bertscore *b, const Window *w, int64_t first, int64_t end, BertscoreResult *out) {
    int64_t width = b->encoder->config.hidden_size;
#pragma omp parallel for schedule(dynamic) num_threads(b->device->threads)
    for (int64_t i = first; i < end; ++i) {
        float *best = w->best + omp_get_thread_num() * b->max_length;
        out[i] = bertscore_match(side_of(w, w->texts->prediction_of[i], width), side_of(w, w->texts->reference_of[i], width),
                                 width, w->texts->weights, best);
        if (b->rescale) rescale(b, &out[i]);
    }
}

static Status score_all(const Bertscore *b, Window *w, int64_t pairs, BertscoreResult *out) {
    const BertscoreTexts *texts = w->texts;
    int64_t width = b->encoder->config.hidden_size, all = texts->starts[texts->count];
    w->capacity = b->window_bytes / (width * (int64_t)sizeof *w->hidden);
    if (w->capacity < 2 * b->max_length) w->capacity = 2 * b->max_length;
    if (w->capacity > all) w->capacity = all;
    TRY_ALLOC(w->members = malloc((size_t)(texts->count + 1) * sizeof *w->members));
    TRY_ALLOC(w->place = malloc((size_t)(texts->count + 1) * sizeof *w->place));
    TRY_ALLOC(w->hidden = malloc((size_t)(w->capacity * width + 1) * sizeof *w->hidden));
    TRY_ALLOC(w->best = malloc((size_t)(b->device->threads * b->max_length) * sizeof *w->best));
    for (int64_t t = 0; t < texts->count; ++t) w->place[t] = -1;
    for (int64_t first = 0, end; first < pairs; first = end) {
        end = fill_window(w, first, pairs);
        TRY(encode_window(b, w));
        match_window(b, w, first, end, out);
    }
    return STATUS_OK;
}

Status bertscore_pairs(Bertscore *b, const char *const *predictions, const char *const *references, int64_t count,
                       BertscoreResult *out) {
    BertscoreTexts texts;
    if (count == 0) return STATUS_OK;
    TRY(bertscore_texts_make(b, predictions, references, count, &texts));
    Window window = {.texts = &texts};
    Status status = score_all(b, &window, count, out);
    free(window.members);
    free(window.place);
    free(window.hidden);
    free(window.best);
    bertscore_texts_free(&texts);
    return status;
}
