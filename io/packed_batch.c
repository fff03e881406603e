#include "io/packed_batch.h"

#include "io/dataset.h"

#include <stdlib.h>
#include <string.h>

static Status check_ends(const int64_t *ends, int64_t sequences) {
    for (int64_t s = 0; s < sequences; ++s)
        if (ends[s] <= (s ? ends[s - 1] : 0)) INVALID("sequence %lld of a batch is empty", (long long)s);
    if (sequences && ends[sequences - 1] > INT32_MAX)
        INVALID("a micro-batch of %lld tokens is too large: lower per_device_train_batch_size or set max_tokens_per_micro_batch",
                (long long)ends[sequences - 1]);
    return STATUS_OK;
}

static Status allocate(PackedBatch *b, int64_t labels) {
    /* One more than needed: malloc(0) may be NULL. */
    size_t tokens = (size_t)b->tokens + 1, sequences = (size_t)b->sequences + 1;
    TRY_ALLOC(b->input_ids = malloc(tokens * sizeof *b->input_ids));
    TRY_ALLOC(b->positions = malloc(tokens * sizeof *b->positions));
    TRY_ALLOC(b->sample_of_token = malloc(tokens * sizeof *b->sample_of_token));
    TRY_ALLOC(b->offsets = malloc(sequences * sizeof *b->offsets));
    TRY_ALLOC(b->samples = malloc(sequences * sizeof *b->samples));
    TRY_ALLOC(b->contexts = calloc(sequences, sizeof *b->contexts));
    TRY_ALLOC(b->label_rows = malloc(((size_t)labels + 1) * sizeof *b->label_rows));
    TRY_ALLOC(b->label_ids = malloc(((size_t)labels + 1) * sizeof *b->label_ids));
    return STATUS_OK;
}

static void fill_sequence(PackedBatch *b, const int32_t *labels, int64_t sequence, int64_t start, int64_t end) {
    b->offsets[sequence + 1] = (int32_t)end;
    if (end - start > b->longest) b->longest = end - start;
    while (start + b->contexts[sequence] < end && labels[start + b->contexts[sequence]] == LABEL_CONTEXT) ++b->contexts[sequence];
    for (int64_t i = start; i < end; ++i) {
        b->positions[i] = (int32_t)(i - start);
        b->sample_of_token[i] = (int32_t)sequence;
        if (i == start || labels[i] < 0) continue;
        b->label_rows[b->label_count] = (int32_t)(i - 1);
        b->label_ids[b->label_count++] = labels[i];
    }
}

Status packed_batch_build(const int32_t *input_ids, const int32_t *labels, const int64_t *ends, const int64_t *samples,
                          int64_t sequences, PackedBatch *out) {
    *out = (PackedBatch){0};
    TRY(check_ends(ends, sequences));
    out->sequences = sequences;
    out->tokens = sequences ? ends[sequences - 1] : 0;
    int64_t label_count = 0;
    for (int64_t i = 0; i < out->tokens; ++i) label_count += labels[i] >= 0;
    Status status = allocate(out, label_count);
    if (status) {
        packed_batch_free(out);
        return status;
    }
    out->offsets[0] = 0;
    if (out->tokens) memcpy(out->input_ids, input_ids, (size_t)out->tokens * sizeof *input_ids);
    if (sequences) memcpy(out->samples, samples, (size_t)sequences * sizeof *samples);
    for (int64_t s = 0; s < sequences; ++s) fill_sequence(out, labels, s, s ? ends[s - 1] : 0, ends[s]);
    return STATUS_OK;
}

void packed_batch_free(PackedBatch *b) {
    free(b->input_ids);
    free(b->positions);
    free(b->offsets);
    free(b->sample_of_token);
    free(b->samples);
    free(b->contexts);
    free(b->label_rows);
    free(b->label_ids);
    *b = (PackedBatch){0};
}
