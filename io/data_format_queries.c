/* Formats whose record is a long document with many queries about it (qmsum, squality): one sample per answer. */
#include "io/data_format_family.h"

/* The instruction prompt that the query-focused recipes use for both sets. */
#define INSTRUCTION_PROMPT(query, input)                                                                                         \
    "Below is an instruction that describes a task, paired with an input that provides further context. Write a response "       \
    "that appropriately completes the request.\n\n### Instruction:\n{" query "}\n\n### Input:\n{" input "}\n\n### Response:"

enum { QMSUM_QUERY, QMSUM_TRANSCRIPT, QMSUM_ANSWER };

static Status render_transcript(const JsonValue *record, Text *out) {
    JsonValue *turns;
    TRY(json_value_get_array(record, "meeting_transcripts", &turns));
    for (size_t i = 0; i < json_value_size(turns); ++i) {
        const JsonValue *turn = json_value_at(turns, i);
        FieldValue speaker, content;
        Status status = json_value_get_string(turn, "speaker", &speaker.data, &speaker.length);
        if (!status) status = json_value_get_string(turn, "content", &content.data, &content.length);
        if (status) return status_prefix(status, "meeting_transcripts[%zu]", i);
        if (i) TRY(text_append(out, "\n", 1));
        TRY(text_append(out, speaker.data, speaker.length));
        TRY(text_append(out, ": ", 2));
        TRY(text_append(out, content.data, content.length));
    }
    return STATUS_OK;
}

static Status add_queries(const DataFormat *format, TokenizerScratch *scratch, const JsonValue *record, const char *key,
                          const Text *transcript, const SampleSink *out) {
    JsonValue *queries;
    TRY(json_value_get_array(record, key, &queries));
    for (size_t i = 0; i < json_value_size(queries); ++i) {
        const JsonValue *item = json_value_at(queries, i);
        FieldValue values[MAXIMUM_FIELDS] = {{0}};
        values[QMSUM_TRANSCRIPT] = (FieldValue){.data = transcript->data ? transcript->data : "", .length = transcript->length};
        FieldValue *query = &values[QMSUM_QUERY], *answer = &values[QMSUM_ANSWER];
        Status status = json_value_get_string(item, "query", &query->data, &query->length);
        if (!status) status = json_value_get_string(item, "answer", &answer->data, &answer->length);
        if (!status) status = data_format_add(format, scratch, values, out);
        if (status) return status_prefix(status, "%s[%zu]", key, i);
    }
    return STATUS_OK;
}

static Status convert_qmsum(const DataFormat *format, TokenizerScratch *scratch, const JsonValue *record, const SampleSink *out) {
    Text transcript = {0};
    Status status = render_transcript(record, &transcript);
    if (!status) status = add_queries(format, scratch, record, "general_query_list", &transcript, out);
    if (!status) status = add_queries(format, scratch, record, "specific_query_list", &transcript, out);
    text_free(&transcript);
    return status;
}

const DataFormatFamily data_format_qmsum = {
    .name = "qmsum",
    .fields = {"query", "transcript", "answer"},
    .answer = QMSUM_ANSWER,
    .cut_order = {0, 1, 0},
    .prompt = INSTRUCTION_PROMPT("query", "transcript"),
    .completion = "{answer}",
    .convert = convert_qmsum,
};

enum { SQUALITY_QUESTION, SQUALITY_DOCUMENT, SQUALITY_RESPONSE };

static Status add_responses(const DataFormat *format, TokenizerScratch *scratch, const JsonValue *question, FieldValue *values,
                            const SampleSink *out) {
    FieldValue *text = &values[SQUALITY_QUESTION], *response = &values[SQUALITY_RESPONSE];
    TRY(json_value_get_string(question, "question_text", &text->data, &text->length));
    JsonValue *responses;
    TRY(json_value_get_array(question, "responses", &responses));
    if (out->examples && !json_value_size(responses)) ++out->examples->without_reference;
    for (size_t i = 0; i < json_value_size(responses); ++i) {
        Status status = json_value_get_string(json_value_at(responses, i), "response_text", &response->data, &response->length);
        if (!status) status = data_format_add(format, scratch, values, out);
        if (status) return status_prefix(status, "responses[%zu]", i);
    }
    return STATUS_OK;
}

static Status convert_squality(const DataFormat *format, TokenizerScratch *scratch, const JsonValue *record,
                               const SampleSink *out) {
    FieldValue values[MAXIMUM_FIELDS] = {{0}};
    FieldValue *document = &values[SQUALITY_DOCUMENT];
    TRY(json_value_get_string(record, "document", &document->data, &document->length));
    JsonValue *questions;
    TRY(json_value_get_array(record, "questions", &questions));
    for (size_t i = 0; i < json_value_size(questions); ++i) {
        Status status = add_responses(format, scratch, json_value_at(questions, i), values, out);
        if (status) return status_prefix(status, "questions[%zu]", i);
    }
    return STATUS_OK;
}

const DataFormatFamily data_format_squality = {
    .name = "squality",
    .fields = {"question", "document", "response"},
    .answer = SQUALITY_RESPONSE,
    .cut_order = {0, 1, 0},
    .prompt = INSTRUCTION_PROMPT("question", "document"),
    .completion = "{response}",
    .convert = convert_squality,
};
