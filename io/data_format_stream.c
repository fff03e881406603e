/* Formats without prompt and completion: text (every token is a label) and tokens (prepared elsewhere). */
#include "io/data_format_family.h"

#include "io/dataset.h"

/* Windows of max_length tokens; the rest of a document is a shorter one. A single token has no predecessor. */
static Status add_windows(const TokenList *ids, int64_t max_length, SampleList *out) {
    int64_t count = (int64_t)ids->count;
    for (int64_t start = 0; start < count; start += max_length) {
        int64_t length = count - start < max_length ? count - start : max_length;
        if (length == 1)
            ++out->counts.dropped[DROP_ONE_TOKEN_WINDOW];
        else
            TRY(sample_list_add(out, ids->ids + start, ids->ids + start, length));
    }
    return STATUS_OK;
}

static Status convert_text(const DataFormat *format, TokenizerScratch *scratch, const JsonValue *record, const SampleSink *out) {
    const DataFormatSettings *s = &format->settings;
    const char *text;
    size_t length;
    if (out->examples) INVALID("format text has no completion: there is nothing to compare a generation with");
    TRY(json_value_get_string(record, "text", &text, &length));
    TokenList ids = {0};
    Status status = tokenizer_encode(s->tokenizer, scratch, text, length, &ids);
    if (!status) status = token_list_push(&ids, tokenizer_eos_id(s->tokenizer));
    if (!status)
        status = s->context_length > 0 ? data_format_add_continuations(s, &ids, out->samples)
                                       : add_windows(&ids, s->max_length, out->samples);
    token_list_free(&ids);
    return status;
}

const DataFormatFamily data_format_text = {.name = "text", .fields = {"text"}, .convert = convert_text};

static Status read_ids(const JsonValue *array, const char *key, int64_t vocabulary_size, bool masked, TokenList *out) {
    int64_t limit = vocabulary_size ? vocabulary_size : (int64_t)INT32_MAX + 1;
    size_t count = json_value_size(array);
    TRY(token_list_reserve(out, count));
    for (size_t i = 0; i < count; ++i) {
        const JsonValue *item = json_value_at(array, i);
        if (!json_value_is_integer(item)) INVALID("%s[%zu] must be an integer, found %s", key, i, json_value_type_name(item));
        int64_t id = json_value_integer(item);
        bool valid = (id >= 0 && id < limit) || (masked && id == LABEL_IGNORED);
        if (!valid)
            INVALID("%s[%zu] = %lld is not in the model's vocabulary of %lld tokens", key, i, (long long)id, (long long)limit);
        out->ids[out->count++] = (int32_t)id;
    }
    return STATUS_OK;
}

static Status read_sample(const DataFormat *format, const JsonValue *record, TokenList *ids, TokenList *labels) {
    JsonValue *array;
    TRY(json_value_get_array(record, "input_ids", &array));
    if (!json_value_size(array)) INVALID("\"input_ids\" is empty");
    TRY(read_ids(array, "input_ids", format->settings.vocabulary_size, false, ids));
    if (!json_value_get(record, "labels")) return token_list_append(labels, ids->ids, ids->count);
    TRY(json_value_get_array(record, "labels", &array));
    if (json_value_size(array) != ids->count)
        INVALID("\"labels\" has %zu items, \"input_ids\" %zu", json_value_size(array), ids->count);
    return read_ids(array, "labels", format->settings.vocabulary_size, true, labels);
}

static Status add_tokens(const DataFormat *format, const TokenList *ids, const TokenList *labels, SampleList *out) {
    int64_t length = (int64_t)ids->count, max_length = format->settings.max_length, before = out->counts.samples;
    if (length > max_length && !format->settings.truncate)
        INVALID("\"input_ids\" has %lld tokens, data.max_length is %lld and data.truncate is false", (long long)length,
                (long long)max_length);
    TRY(sample_list_add(out, ids->ids, labels->ids, length < max_length ? length : max_length));
    if (length > max_length) out->counts.truncated += out->counts.samples - before;
    return STATUS_OK;
}

/* The last stretch of labels is what should be generated. Nobody knows what could be cut from ids. */
static Status add_tokens_example(const DataFormat *format, const TokenList *ids, const TokenList *labels, ExampleList *out) {
    size_t end = labels->count, start;
    while (end > 0 && labels->ids[end - 1] == LABEL_IGNORED) --end;
    for (start = end; start > 0 && labels->ids[start - 1] != LABEL_IGNORED;) --start;
    if (start == end) {
        ++out->without_reference;
        return STATUS_OK;
    }
    const char *bytes = (const char *)ids->ids; /* two prompts are the same when their ids are */
    size_t length = start * sizeof *ids->ids;
    TokenList prompt = {.ids = ids->ids, .count = start};
    PromptFit fit = (int64_t)start > format->settings.max_length ? PROMPT_TOO_LONG : PROMPT_WHOLE;
    if (!example_list_asks(out, bytes, length)) TRY(example_list_add(out, bytes, length, &prompt, fit));
    Text answer = {0};
    Status status = tokenizer_decode(format->settings.tokenizer, labels->ids + start, end - start, true, &answer);
    if (!status) status = example_list_refer(out, answer.data ? answer.data : "", answer.length);
    text_free(&answer);
    return status;
}

static Status convert_tokens(const DataFormat *format, TokenizerScratch *scratch, const JsonValue *record,
                             const SampleSink *out) {
    (void)scratch;
    TokenList ids = {0}, labels = {0};
    if (out->examples && !json_value_get(record, "labels"))
        INVALID("format tokens needs \"labels\": without them there is nothing to compare a generation with");
    Status status = read_sample(format, record, &ids, &labels);
    if (!status && out->samples) status = add_tokens(format, &ids, &labels, out->samples);
    if (!status && out->examples) status = add_tokens_example(format, &ids, &labels, out->examples);
    token_list_free(&ids);
    token_list_free(&labels);
    return status;
}

const DataFormatFamily data_format_tokens = {.name = "tokens", .fields = {"input_ids", "labels"}, .convert = convert_tokens};
