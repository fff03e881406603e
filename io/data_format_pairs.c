/* Formats whose record is one pair: text in, text out (cnn_dailymail, dialogsum, samsum, prompt_completion). */
#include "io/data_format_family.h"

#include <stdio.h>
#include <string.h>

static Status get_field(const JsonValue *record, const char *key, FieldValue *value) {
    return json_value_get_string(record, key, &value->data, &value->length);
}

/* As Python's str.strip() for the characters that occur at the ends of such files. */
static void strip(FieldValue *value) {
    static const char blank[] = " \t\n\r\f\v";
    while (value->length && memchr(blank, value->data[0], sizeof blank - 1)) ++value->data, --value->length;
    while (value->length && memchr(blank, value->data[value->length - 1], sizeof blank - 1)) --value->length;
}

static bool uses_field(const TextTemplate *t, int field) {
    for (size_t i = 0; i < t->count; ++i)
        if (t->parts[i].field == field) return true;
    return false;
}

/* The first two fields make the pair and must be there; others only where a template uses them. answer: the member that holds
 * the second, NULL: the one of that name. */
static Status get_fields(const DataFormat *format, const JsonValue *record, const char *answer, FieldValue *values) {
    for (int i = 0; format->family->fields[i]; ++i)
        if (i < 2 || uses_field(&format->prompt, i) || uses_field(&format->completion, i))
            TRY(get_field(record, i == 1 && answer ? answer : format->family->fields[i], &values[i]));
    return STATUS_OK;
}

static Status convert_as_written(const DataFormat *format, TokenizerScratch *scratch, const JsonValue *record,
                                 const SampleSink *out) {
    FieldValue values[MAXIMUM_FIELDS] = {{0}};
    TRY(get_fields(format, record, NULL, values));
    return data_format_add(format, scratch, values, out);
}

static Status convert_stripped(const DataFormat *format, TokenizerScratch *scratch, const JsonValue *record,
                               const SampleSink *out) {
    FieldValue values[MAXIMUM_FIELDS] = {{0}};
    TRY(get_fields(format, record, NULL, values));
    strip(&values[1]);
    return data_format_add(format, scratch, values, out);
}

/* Some copies of SAMSum end lines with CRLF, some with LF: both give the same sample. */
static Status add_line_ends(const DataFormat *format, TokenizerScratch *scratch, const JsonValue *record, const char *answer,
                            const SampleSink *out) {
    FieldValue values[MAXIMUM_FIELDS] = {{0}};
    TRY(get_fields(format, record, answer, values));
    Text dialogue = {0};
    Status status = STATUS_OK;
    for (size_t i = 0; i < values[0].length && !status; ++i) {
        bool carriage_return = values[0].data[i] == '\r' && i + 1 < values[0].length && values[0].data[i + 1] == '\n';
        if (!carriage_return) status = text_append(&dialogue, values[0].data + i, 1);
    }
    if (!status) {
        values[0] = (FieldValue){.data = dialogue.data ? dialogue.data : "", .length = dialogue.length};
        strip(&values[1]);
        status = data_format_add(format, scratch, values, out);
    }
    text_free(&dialogue);
    return status;
}

static Status convert_line_ends(const DataFormat *format, TokenizerScratch *scratch, const JsonValue *record,
                                const SampleSink *out) {
    return add_line_ends(format, scratch, record, NULL, out);
}

/* DialogSum's test set has no "summary" but "summary1" to "summary3" of the same dialogue: a sample each. */
static Status convert_dialogsum(const DataFormat *format, TokenizerScratch *scratch, const JsonValue *record,
                                const SampleSink *out) {
    char answer[16] = "summary1";
    if (json_value_get(record, "summary") || !json_value_get(record, answer))
        return add_line_ends(format, scratch, record, NULL, out);
    for (int n = 1; n < 10 && json_value_get(record, answer); ++n, snprintf(answer, sizeof answer, "summary%d", n))
        TRY(add_line_ends(format, scratch, record, answer, out));
    return STATUS_OK;
}

/* The template of the published CNN/DailyMail recipe. */
const DataFormatFamily data_format_cnn_dailymail = {
    .name = "cnn_dailymail",
    .fields = {"article", "highlights", "id"},
    .cut_order = {1},
    .answer = 1,
    .prompt = "[INST] Summarize the following news article:\n\n{article}\n\nSummary: [/INST]",
    .completion = " {highlights}",
    .convert = convert_stripped,
};

const DataFormatFamily data_format_dialogsum = {
    .name = "dialogsum",
    .fields = {"dialogue", "summary", "topic", "fname"},
    .cut_order = {1},
    .answer = 1,
    .prompt = "Summarize the following dialogue:\n\n{dialogue}\n\nSummary:",
    .completion = " {summary}",
    .convert = convert_dialogsum,
};

const DataFormatFamily data_format_samsum = {
    .name = "samsum",
    .fields = {"dialogue", "summary", "id"},
    .cut_order = {1},
    .answer = 1,
    .prompt = "Summarize the following dialogue:\n\n{dialogue}\n\nSummary:",
    .completion = " {summary}",
    .convert = convert_line_ends,
};

const DataFormatFamily data_format_prompt_completion = {
    .name = "prompt_completion",
    .fields = {"prompt", "completion"},
    .cut_order = {1},
    .answer = 1,
    .prompt = "{prompt}",
    .completion = "{completion}",
    .convert = convert_as_written,
};
