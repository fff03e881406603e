#include "trainer/sample_view.h"

#include <stdlib.h>

/* Tokens [start, end) are all trained or all not: one run is decoded at once, so that characters of several tokens stay
 * whole. */
static Status append_run(const int32_t *ids, int32_t start, int32_t end, const Tokenizer *tokenizer, Text *out) {
    if (tokenizer) return tokenizer_decode(tokenizer, ids + start, (size_t)(end - start), false, out);
    for (int32_t i = start; i < end; ++i) TRY(text_append_format(out, "%s%d", i > start ? " " : "", (int)ids[i]));
    return STATUS_OK;
}

static bool trained(const int32_t *labels, int32_t index) { return index > 0 && labels[index] >= 0; }

static Status append_tokens(const int32_t *ids, const int32_t *labels, int32_t length, const Tokenizer *tokenizer, bool colour,
                            Text *out) {
    for (int32_t start = 0, end; start < length; start = end) {
        for (end = start + 1; end < length && trained(labels, end) == trained(labels, start);) ++end;
        bool label = trained(labels, start);
        if (!tokenizer && start) TRY(text_append(out, " ", 1));
        if (label) TRY(text_append_string(out, colour ? "\033[32m" : "\302\253"));
        TRY(append_run(ids, start, end, tokenizer, out));
        if (label) TRY(text_append_string(out, colour ? "\033[0m" : "\302\273"));
    }
    return text_append(out, "\n\n", 2);
}

Status sample_view_append(TokenDataset *dataset, int64_t sample, const char *name, const Tokenizer *tokenizer, bool colour,
                          Text *out) {
    int32_t length = token_dataset_length(dataset, sample);
    TRY(text_append_format(out, "=== %s sample %lld: %d tokens, %d trained\n", name, (long long)sample, (int)length,
                           (int)token_dataset_label_tokens(dataset, sample)));
    int32_t *ids = malloc((size_t)length * sizeof *ids), *labels = malloc((size_t)length * sizeof *labels);
    Status status = ids && labels ? token_dataset_read(dataset, sample, ids, labels) : FAILURE("out of memory: one sample");
    if (!status) status = append_tokens(ids, labels, length, tokenizer, colour, out);
    free(ids);
    free(labels);
    return status;
}
