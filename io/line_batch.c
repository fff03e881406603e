#include "io/line_batch.h"

#include <omp.h>
#include <stdlib.h>

void line_batch_free(LineBatch *batch) {
    text_free(&batch->text);
    free(batch->ends);
    free(batch->numbers);
    *batch = (LineBatch){.count = 0};
}

static Status add_line(LineBatch *batch, const char *line, size_t length, int64_t number) {
    if (batch->count == batch->capacity) {
        size_t grown = batch->capacity ? batch->capacity * 2 : 1024;
        size_t *ends;
        int64_t *numbers;
        TRY_ALLOC(ends = realloc(batch->ends, grown * sizeof *ends));
        batch->ends = ends;
        TRY_ALLOC(numbers = realloc(batch->numbers, grown * sizeof *numbers));
        batch->numbers = numbers;
        batch->capacity = grown;
    }
    TRY(text_append(&batch->text, line, length));
    batch->ends[batch->count] = batch->text.length;
    batch->numbers[batch->count++] = number;
    return STATUS_OK;
}

Status line_batch_read(JsonLines *reader, size_t max_bytes, size_t max_lines, LineBatch *out) {
    text_clear(&out->text);
    out->count = 0;
    while (out->text.length < max_bytes && out->count < max_lines) {
        const char *line;
        size_t length;
        TRY(json_lines_next(reader, &line, &length));
        if (!line) break;
        TRY(add_line(out, line, length, json_lines_number(reader)));
    }
    return STATUS_OK;
}

static Status convert_line(const LineBatch *batch, size_t index, const DataFormat *format, TokenizerScratch *scratch,
                           SampleList *out) {
    size_t start = index ? batch->ends[index - 1] : 0;
    JsonValue *record;
    TRY(json_value_parse(batch->text.data + start, batch->ends[index] - start, &record));
    Status status = data_format_convert(format, scratch, record, out);
    json_value_free(record);
    return status;
}

/* Lines are handed out in ascending order and none is given up before a broken one ahead of it was seen, so the error that
 * stays is that of the first broken line. */
static Status convert_lines(const LineBatch *batch, const DataFormat *format, const Tokenizer *tokenizer, const char *name,
                            int threads, SampleList *results) {
    Status status = STATUS_OK;
    size_t broken = batch->count;
#pragma omp parallel num_threads(threads)
    {
        TokenizerScratch *scratch = NULL;
        Status own = tokenizer ? tokenizer_scratch_new(tokenizer, &scratch) : STATUS_OK;
#pragma omp for schedule(dynamic, 1)
        for (size_t i = 0; i < batch->count; ++i) {
            size_t limit;
#pragma omp atomic read
            limit = broken;
            Status line_status = STATUS_OK;
            if (i < limit && own)
                line_status = FAILURE("%s", status_message(own));
            else if (i < limit)
                line_status = convert_line(batch, i, format, scratch, &results[i]);
            if (line_status) {
                status_prefix(line_status, "%s:%lld", name, (long long)batch->numbers[i]);
#pragma omp critical(line_batch_error)
                {
                    Status loser = line_status;
                    if (i < broken) {
                        loser = status;
                        status = line_status;
#pragma omp atomic write
                        broken = i;
                    }
                    status_free(loser);
                }
            }
        }
        status_free(own);
        tokenizer_scratch_free(scratch);
    }
    return status;
}

static Status gather(const LineBatch *batch, SampleList *results, SampleList *out, int64_t *first_no_label_line) {
    *first_no_label_line = 0;
    for (size_t i = 0; i < batch->count; ++i) {
        if (!*first_no_label_line && results[i].counts.dropped[DROP_NO_LABEL]) *first_no_label_line = batch->numbers[i];
        TRY(sample_list_append(out, &results[i]));
        sample_list_free(&results[i]); /* a batch is large: do not hold it twice */
    }
    return STATUS_OK;
}

Status line_batch_convert(const LineBatch *batch, const DataFormat *format, const Tokenizer *tokenizer, const char *name,
                          int threads, SampleList *out, int64_t *first_no_label_line) {
    SampleList *results = calloc(batch->count + 1, sizeof *results);
    TRY_ALLOC(results);
    if (threads < 1) threads = omp_get_max_threads();
    Status status = convert_lines(batch, format, tokenizer, name, threads, results);
    if (!status) status = gather(batch, results, out, first_no_label_line);
    for (size_t i = 0; i < batch->count; ++i) sample_list_free(&results[i]);
    free(results);
    return status;
}
