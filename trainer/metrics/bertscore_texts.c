/* Texts repeat: a prediction stands beside each of its references, and systems like to say the same. Each is tokenized and
 * encoded once. */
#include "trainer/metrics/bertscore_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct TextTable {
    const char **texts; /* by number */
    int64_t count;
    int64_t *slots; /* open addressing by text, -1 = empty */
    uint64_t mask;
} TextTable;

static uint64_t hash_text(const char *text) {
    uint64_t hash = 0xCBF29CE484222325u; /* FNV-1a */
    for (; *text; ++text) hash = (hash ^ (unsigned char)*text) * 0x100000001B3u;
    return hash ^ hash >> 29;
}

static Status table_init(TextTable *table, int64_t most) {
    uint64_t slots = 16;
    while (slots < (uint64_t)most * 2) slots *= 2;
    TRY_ALLOC(table->texts = malloc((size_t)(most + 1) * sizeof *table->texts));
    TRY_ALLOC(table->slots = malloc(slots * sizeof *table->slots));
    memset(table->slots, 0xFF, slots * sizeof *table->slots);
    table->mask = slots - 1;
    return STATUS_OK;
}

static void table_free(TextTable *table) {
    free(table->texts);
    free(table->slots);
}

static int64_t number_of(TextTable *table, const char *text) {
    uint64_t i = hash_text(text) & table->mask;
    for (; table->slots[i] >= 0; i = (i + 1) & table->mask)
        if (!strcmp(table->texts[table->slots[i]], text)) return table->slots[i];
    table->texts[table->count] = text;
    return table->slots[i] = table->count++;
}

/* Numbers both texts of every pair, and tokenizes those not seen before. */
static Status add_pairs(const Bertscore *b, TextTable *table, const char *const *const sides[2], int64_t pairs,
                        BertscoreTexts *out) {
    static const char *const names[] = {"prediction", "reference"};
    int64_t *const numbers[] = {out->prediction_of, out->reference_of};
    for (int64_t i = 0; i < pairs; ++i)
        for (int side = 0; side < 2; ++side) {
            const char *text = sides[side][i];
            int64_t number = number_of(table, text);
            numbers[side][i] = number;
            if (number < out->count) continue;
            TRY(status_prefix(
                encoder_tokenizer_encode(b->tokenizer, text, strlen(text), b->prefix_space, b->max_length, &out->ids),
                "%s of pair %lld", names[side], (long long)i + 1));
            out->starts[++out->count] = (int64_t)out->ids.count;
        }
    return STATUS_OK;
}

/* Inverse document frequency among the references, repeated ones counted as often as they stand there. */
static Status inverse_frequencies(BertscoreTexts *texts, int64_t pairs, int64_t vocabulary) {
    int64_t *uses = calloc((size_t)texts->count + 1, sizeof *uses), *documents = calloc((size_t)vocabulary, sizeof *documents);
    int64_t *seen_in = malloc((size_t)vocabulary * sizeof *seen_in);
    Status status = uses && documents && seen_in ? STATUS_OK : FAILURE("out of memory: document frequencies");
    if (status) goto done;
    for (int64_t i = 0; i < vocabulary; ++i) seen_in[i] = -1;
    for (int64_t i = 0; i < pairs; ++i) ++uses[texts->reference_of[i]];
    for (int64_t t = 0; t < texts->count; ++t)
        for (int64_t k = texts->starts[t]; k < texts->starts[t + 1]; ++k) {
            int32_t id = texts->ids.ids[k];
            if (seen_in[id] == t) continue;
            seen_in[id] = t;
            documents[id] += uses[t];
        }
    for (int64_t i = 0; i < vocabulary; ++i) texts->weights[i] = (float)log((double)(pairs + 1) / (double)(documents[i] + 1));
done:
    free(uses);
    free(documents);
    free(seen_in);
    return status;
}

Status bertscore_texts_make(const Bertscore *b, const char *const *predictions, const char *const *references, int64_t pairs,
                            BertscoreTexts *out) {
    TextTable table = {0};
    const char *const *const sides[2] = {predictions, references};
    int64_t vocabulary = b->encoder->config.vocab_size;
    Status status;
    *out = (BertscoreTexts){0};
    TRY_GOTO(table_init(&table, 2 * pairs), done);
    out->starts = calloc((size_t)(2 * pairs + 1), sizeof *out->starts);
    out->prediction_of = malloc((size_t)(pairs + 1) * sizeof *out->prediction_of);
    out->reference_of = malloc((size_t)(pairs + 1) * sizeof *out->reference_of);
    out->weights = malloc((size_t)vocabulary * sizeof *out->weights);
    if (!out->starts || !out->prediction_of || !out->reference_of || !out->weights) status = FAILURE("out of memory: texts");
    if (status) goto done;
    TRY_GOTO(add_pairs(b, &table, sides, pairs, out), done);
    for (int64_t i = 0; i < vocabulary; ++i) out->weights[i] = 1.0f;
    out->weights[encoder_tokenizer_first_id(b->tokenizer)] = out->weights[encoder_tokenizer_last_id(b->tokenizer)] = 0.0f;
    if (b->idf) status = inverse_frequencies(out, pairs, vocabulary);
done:
    table_free(&table);
    if (status) bertscore_texts_free(out);
    return status;
}

void bertscore_texts_free(BertscoreTexts *texts) {
    token_list_free(&texts->ids);
    free(texts->starts);
    free(texts->prediction_of);
    free(texts->reference_of);
    free(texts->weights);
    *texts = (BertscoreTexts){0};
}
