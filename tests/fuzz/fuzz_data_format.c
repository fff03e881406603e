/* First line: "FORMAT MAX_LENGTH PROMPT_TEMPLATE" (the template may be empty); the rest: one JSON record. Whatever it is, the
 * answer is one clean error, or samples that are never too long, whose labels are their ids, and that all count. */
#include "io/data_format.h"
#include "io/dataset.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool condition, const char *what) {
    if (condition) return;
    fprintf(stderr, "%s\n", what);
    abort();
}

/* Loaded once: the fuzzer calls the entry millions of times and gives it no context. */
static Tokenizer *tokenizer;
static TokenizerScratch *scratch;

static void load(void) {
    if (tokenizer) return;
    check(!tokenizer_load(TEST_DATA "/tokenizer-small", &tokenizer), "cannot load the tokenizer");
    check(!tokenizer_scratch_new(tokenizer, &scratch), "out of memory");
}

static void check_error(Status status) {
    check(status_exit_code(status) == 2, "an error of the input must be STATUS_INVALID");
    check(*status_message(status), "an error without message");
    status_free(status);
}

/* For tokens, labels are free to differ from ids. */
static void check_samples(const SampleList *samples, int64_t max_length, bool labels_are_ids) {
    int64_t start = 0;
    for (size_t i = 0; i < samples->count; ++i) {
        int64_t length = samples->ends[i] - start;
        check(length >= 2 && length <= max_length, "a sample is too long or too short");
        check(samples->label_tokens[i] == sample_label_tokens(samples->labels.ids + start, length),
              "label tokens are miscounted");
        check(samples->label_tokens[i] > 0, "a sample without label");
        for (int64_t k = start; k < samples->ends[i]; ++k) {
            int32_t label = samples->labels.ids[k];
            check(label == LABEL_IGNORED || !labels_are_ids || label == samples->input_ids.ids[k], "a label is not its id");
        }
        start = samples->ends[i];
    }
    check(samples->input_ids.count == (size_t)start && samples->labels.count == (size_t)start, "tokens outside all samples");
}

static void convert(const DataFormatSettings *settings, const char *json, size_t length) {
    DataFormat *format;
    JsonValue *record;
    Status status = data_format_create(settings, &format);
    if (status) {
        check_error(status);
        return;
    }
    status = json_value_parse(json, length, &record);
    if (status) {
        check_error(status);
        data_format_destroy(format);
        return;
    }
    SampleList samples = {.count = 0};
    status = data_format_convert(format, scratch, record, &samples);
    if (status)
        check_error(status);
    else
        check_samples(&samples, settings->max_length, strcmp(settings->format, "tokens") != 0);
    sample_list_free(&samples);
    json_value_free(record);
    data_format_destroy(format);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    load();
    const uint8_t *end = size ? memchr(data, '\n', size) : NULL;
    if (!end) return 0;
    char head[256], name[32];
    size_t head_length = (size_t)(end - data);
    int max_length, used = 0;
    if (head_length >= sizeof head) return 0;
    memcpy(head, data, head_length);
    head[head_length] = 0;
    if (sscanf(head, "%31s %d %n", name, &max_length, &used) < 2) return 0;
    DataFormatSettings settings = {.format = name,
                                   .prompt_template = head + used,
                                   .completion_template = "",
                                   .chat_template = used && strchr(head + used, '|') ? "chatml" : "",
                                   .system = "",
                                   .max_length = max_length,
                                   .truncate = true,
                                   .vocabulary_size = 4200,
                                   .tokenizer = tokenizer};
    convert(&settings, (const char *)end + 1, size - head_length - 1);
    return 0;
}
