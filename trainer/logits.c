#include "trainer/logits.h"

#include "io/data_format.h"
#include "io/dataset.h"
#include "io/json_lines.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The token ids of all records; tensor N is computed when the writer asks for it. */
typedef struct Records {
    Session *session;
    TokenList ids;
    int64_t *ends; /* [count] */
    int64_t count, capacity;
} Records;

static Status add_record(Records *records, const int32_t *ids, size_t count) {
    if (records->count == records->capacity) {
        int64_t capacity = records->capacity ? 2 * records->capacity : 64, *ends;
        TRY_ALLOC(ends = realloc(records->ends, (size_t)capacity * sizeof *ends));
        records->ends = ends;
        records->capacity = capacity;
    }
    TRY(token_list_append(&records->ids, ids, count));
    records->ends[records->count++] = (int64_t)records->ids.count;
    return STATUS_OK;
}

/* Logits need ids only: a record of format tokens may have no label at all, which data sets would drop. */
static Status add_plain_ids(Records *records, const JsonValue *record) {
    JsonValue *ids;
    TRY(json_value_get_array(record, "input_ids", &ids));
    size_t count = json_value_size(ids);
    if (count == 0) INVALID("input_ids is empty");
    for (size_t i = 0; i < count; ++i) {
        const JsonValue *id = json_value_at(ids, i);
        int64_t value = json_value_integer(id);
        if (!json_value_is_integer(id) || value < 0 || value >= records->session->config.vocab_size)
            INVALID("input_ids[%zu] is not an id below the model's vocabulary size %lld", i,
                    (long long)records->session->config.vocab_size);
        TRY(token_list_push(&records->ids, (int32_t)value));
    }
    return add_record(records, NULL, 0);
}

static Status add_converted(Records *records, const DataFormat *format, TokenizerScratch *scratch, SampleList *samples,
                            const JsonValue *record) {
    sample_list_clear(samples);
    TRY(data_format_convert(format, scratch, record, samples));
    if (samples->count != 1) INVALID("gives %zu samples; logits need exactly one", samples->count);
    return add_record(records, samples->input_ids.ids, samples->input_ids.count);
}

static Status read_source(Records *records, const DataSource *source, const DataFormat *format, TokenizerScratch *scratch) {
    JsonLines *reader;
    SampleList samples = {0};
    JsonValue *record = NULL;
    TRY(json_lines_open(source->path, &reader));
    Status status = json_lines_next_object(reader, &record);
    while (!status && record) {
        status = data_format_needs_tokenizer(source->format) ? add_converted(records, format, scratch, &samples, record)
                                                             : add_plain_ids(records, record);
        status = status_prefix(status, "%s:%lld", source->path, (long long)json_lines_number(reader));
        json_value_free(record);
        record = NULL;
        if (!status) status = json_lines_next_object(reader, &record);
    }
    sample_list_free(&samples);
    json_lines_close(reader);
    return status;
}

static Status read_records(Records *records, const Tokenizer *tokenizer) {
    const Options *options = records->session->options;
    const DataSource *sources = options->data.validation.items;
    TokenizerScratch *scratch = NULL;
    Status status = tokenizer ? tokenizer_scratch_new(tokenizer, &scratch) : STATUS_OK;
    for (int64_t i = 0; i < options->data.validation.count && !status; ++i) {
        DataFormat *format = NULL;
        DataFormatSettings settings = {.format = sources[i].format,
                                       .prompt_template = options->data.prompt_template,
                                       .completion_template = options->data.completion_template,
                                       .chat_template = options->data.chat_template,
                                       .system = options->data.system,
                                       .max_length = options->data.max_length,
                                       .truncate = options->data.truncate,
                                       .vocabulary_size = records->session->config.vocab_size,
                                       .tokenizer = tokenizer};
        status = data_format_create(&settings, &format);
        if (!status) status = read_source(records, &sources[i], format, scratch);
        data_format_destroy(format);
    }
    tokenizer_scratch_free(scratch);
    return status;
}

/* One record through the decoder: all rows times the head. */
static Status compute(Session *session, const int32_t *ids, int64_t count, float *out) {
    int64_t end = count, sample = 0;
    int32_t *labels;
    PackedBatch packed;
    Value *hidden, *logits;
    DecoderRun run = {.layout = &session->batch.layout};
    TRY_ALLOC(labels = malloc((size_t)count * sizeof *labels));
    for (int64_t i = 0; i < count; ++i) labels[i] = LABEL_IGNORED;
    Status status = packed_batch_build(ids, labels, &end, &sample, 1, &packed);
    free(labels);
    TRY(status);
    status = device_batch_set(&session->batch, session->device, &packed);
    packed_batch_free(&packed);
    TRY(status);
    TRY(tape_begin(session->tape, false, false));
    TRY(decoder_forward(session->decoder, session->tape, &run, session->batch.ids, &hidden));
    TRY(tape_value(session->tape, DTYPE_F32, 2, (int64_t[]){count, session->config.vocab_size}, false, &logits));
    TRY(tape_ops(session->tape)
            ->matmul(session->device, session->arena, logits->data, hidden->data, false, session->decoder->head->value, true,
                     tensor_absent(), 1.0f, 0.0f));
    return device_download(session->device, out, logits->data.data, tensor_bytes(logits->data));
}

static Status fill(void *context, size_t index, void *buffer) {
    const Records *records = context;
    int64_t start = index ? records->ends[index - 1] : 0;
    return compute(records->session, records->ids.ids + start, records->ends[index] - start, buffer);
}

static Status write_records(Records *records, const char *path) {
    SafetensorsEntry *entries;
    char(*names)[32] = calloc((size_t)records->count + 1, sizeof *names);
    TRY_ALLOC(entries = calloc((size_t)records->count + 1, sizeof *entries));
    Status status = names ? STATUS_OK : FAILURE("out of memory: tensor names");
    for (int64_t i = 0; i < records->count && !status; ++i) {
        int64_t length = records->ends[i] - (i ? records->ends[i - 1] : 0), width = records->session->config.vocab_size;
        snprintf(names[i], sizeof names[i], "logits.%lld", (long long)i);
        entries[i] = (SafetensorsEntry){.name = names[i],
                                        .dtype = "F32",
                                        .dimensions = 2,
                                        .shape = {length, width},
                                        .bytes = length * width * (int64_t)sizeof(float)};
    }
    if (!status) status = safetensors_write(path, entries, (size_t)records->count, fill, records);
    free(names);
    free(entries);
    return status;
}

Status logits_write(Session *session, const Tokenizer *tokenizer, const char *path) {
    Records records = {.session = session};
    Status status = read_records(&records, tokenizer);
    if (!status) status = write_records(&records, path);
    token_list_free(&records.ids);
    free(records.ends);
    return status;
}
