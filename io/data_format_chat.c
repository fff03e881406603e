/* Format chat, and the ChatML rendering that the other formats share.
 *
 * Token boundaries: special tokens split the text, and "assistant\n" and what follows it are one tokenization unit, so the
 * ids of all units together are the ids of the whole rendered text. */
#include "io/data_format_family.h"

#include "io/chat_template.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

static const char turn_start[] = "<|im_start|>", turn_end[] = "<|im_end|>";
enum { TURN_START = sizeof turn_start - 1, TURN_END = sizeof turn_end - 1 };

typedef struct Message {
    const char *role;
    size_t role_length, content_length;
    bool assistant;
} Message;

Status chat_append_message(JsonValue *messages, const char *role, const char *content, size_t length) {
    JsonValue *message = json_value_new_object();
    TRY_ALLOC(message);
    Status status = json_value_set(message, "role", json_value_new_string(role, strlen(role)));
    if (!status) status = json_value_set(message, "content", json_value_new_string(content, length));
    if (status) {
        json_value_free(message);
        return status;
    }
    return json_value_append(messages, message);
}

static Status read_message(const JsonValue *messages, size_t index, Message *out) {
    const JsonValue *item = json_value_at(messages, index);
    const char *content;
    Status status = json_value_get_string(item, "role", &out->role, &out->role_length);
    if (!status) status = json_value_get_string(item, "content", &content, &out->content_length);
    if (status) return status_prefix(status, "messages[%zu]", index);
    out->assistant = !strcmp(out->role, "assistant");
    return STATUS_OK;
}

/* <|im_start|> role \n content <|im_end|> \n */
static size_t header_length(const Message *m) { return TURN_START + m->role_length + 1; }
static size_t block_length(const Message *m) { return header_length(m) + m->content_length + TURN_END + 1; }

/* Marks the block of an assistant message; span is what chat_template_render says is trained. */
static Status mark_assistant(SampleText *sample, size_t start, const Message *m, MessageOrder order, ChatSpan span) {
    size_t content = start + header_length(m), end = content + m->content_length + TURN_END;
    if (span.start != content || span.end != end) FAIL("the chat template was not rendered as ChatML");
    SamplePiece piece = {.order = order.block, .whole = order.block != 0};
    piece.start = start, piece.end = start + TURN_START;
    TRY(sample_text_mark(sample, piece));
    piece.start = piece.end, piece.end = content, piece.new_unit = true;
    TRY(sample_text_mark(sample, piece));
    piece.start = content, piece.end = end, piece.new_unit = false, piece.label = true;
    TRY(sample_text_mark(sample, piece));
    piece.start = end, piece.end = end + 1, piece.new_unit = true, piece.label = false;
    return sample_text_mark(sample, piece);
}

static Status mark_content(SampleText *sample, size_t start, size_t length, MessageOrder order, const MessageContent *content) {
    if (!content || !content->count || order.block) {
        SamplePiece piece = {.start = start, .end = start + length};
        piece.order = order.block ? order.block : order.content;
        piece.whole = order.block != 0;
        return sample_text_mark(sample, piece);
    }
    for (size_t i = 0; i < content->count; ++i) {
        SamplePiece piece = content->pieces[i];
        piece.start += start;
        piece.end += start;
        TRY(sample_text_mark(sample, piece));
    }
    return STATUS_OK;
}

static Status mark_other(SampleText *sample, size_t start, const Message *m, MessageOrder order, const MessageContent *content) {
    size_t body = start + header_length(m), end = start + block_length(m);
    SamplePiece piece = {.start = start, .end = body, .order = order.block, .whole = order.block != 0};
    TRY(sample_text_mark(sample, piece));
    TRY(mark_content(sample, body, m->content_length, order, content));
    piece.start = body + m->content_length, piece.end = end;
    return sample_text_mark(sample, piece);
}

static Status mark_messages(const JsonValue *messages, const MessageOrder *orders, const MessageContent *contents,
                            const ChatSpan *spans, size_t span_count, SampleText *sample) {
    size_t count = json_value_size(messages), blocks = 0, span = 0;
    Message message;
    for (size_t i = 0; i < count; ++i) {
        TRY(read_message(messages, i, &message));
        blocks += block_length(&message);
    }
    if (blocks > sample->text.length) FAIL("the chat template was not rendered as ChatML");
    /* What stands before the first message is the default system message. */
    size_t start = sample->text.length - blocks;
    if (start) TRY(sample_text_mark(sample, (SamplePiece){.start = 0, .end = start}));
    for (size_t i = 0; i < count; ++i) {
        TRY(read_message(messages, i, &message));
        MessageOrder order = orders ? orders[i] : (MessageOrder){0};
        if (message.assistant && span == span_count) FAIL("the chat template was not rendered as ChatML");
        if (message.assistant)
            TRY(mark_assistant(sample, start, &message, order, spans[span++]));
        else
            TRY(mark_other(sample, start, &message, order, contents ? &contents[i] : NULL));
        start += block_length(&message);
    }
    return STATUS_OK;
}

Status chat_sample(const JsonValue *messages, const MessageOrder *orders, const MessageContent *contents, SampleText *sample) {
    ChatSpan *spans = NULL;
    size_t span_count = 0;
    TRY(chat_template_render(messages, false, &sample->text, &spans, &span_count));
    Status status = mark_messages(messages, orders, contents, spans, span_count, sample);
    free(spans);
    return status;
}

/* An exchange is one or more user messages and the answers to them. Messages after the last answer train nothing and go
 * first; then exchanges, oldest first; the last exchange stays, only its user messages can be cut. System messages stay. */
static Status plan_orders(const JsonValue *messages, MessageOrder *orders) {
    size_t count = json_value_size(messages), last_answer = 0, last_exchange = 0, exchanges = 0;
    bool answered = false, after_user = false;
    Message message;
    for (size_t i = 0; i < count; ++i) {
        TRY(read_message(messages, i, &message));
        bool user = !strcmp(message.role, "user");
        if (user && !after_user) ++exchanges;
        after_user = user;
        if (message.assistant) last_answer = i, last_exchange = exchanges, answered = true;
        orders[i].block = (int)exchanges; /* for now: the number of its exchange */
    }
    if (!answered) return STATUS_OK;
    for (size_t i = 0; i < count; ++i) {
        TRY(read_message(messages, i, &message));
        size_t exchange = (size_t)orders[i].block;
        bool system = !strcmp(message.role, "system"), user = !strcmp(message.role, "user");
        orders[i].block = system ? 0 : i > last_answer ? 1 : exchange < last_exchange ? 2 + (int)exchange : 0;
        orders[i].content = user && !orders[i].block ? INT_MAX - 1 : 0;
    }
    return STATUS_OK;
}

/* The record's messages, with data.system before them where they bring no system message of their own. */
static Status with_system(const DataFormat *format, const JsonValue *messages, JsonValue **out) {
    const char *system = format->settings.system, *content;
    size_t length;
    Message message;
    TRY_ALLOC(*out = json_value_new_array());
    TRY(chat_append_message(*out, "system", system, strlen(system)));
    for (size_t i = 0; i < json_value_size(messages); ++i) {
        const JsonValue *item = json_value_at(messages, i);
        TRY(read_message(messages, i, &message));
        if (json_value_get(item, "tool_calls")) INVALID("messages[%zu]: tool calls are not supported", i);
        TRY(json_value_get_string(item, "content", &content, &length));
        TRY(chat_append_message(*out, message.role, content, length));
    }
    return STATUS_OK;
}

/* A generation answers the conversation up to the last assistant turn. */
static Status add_last_answer(const DataFormat *format, TokenizerScratch *scratch, const JsonValue *messages, SampleText *sample,
                              ExampleList *out) {
    const char *answer = "";
    size_t length = 0;
    Message message = {.assistant = false};
    for (size_t i = json_value_size(messages); i-- > 0 && !message.assistant;) {
        TRY(read_message(messages, i, &message));
        if (message.assistant) TRY(json_value_get_string(json_value_at(messages, i), "content", &answer, &length));
    }
    return data_format_add_example(format, scratch, sample, answer, length, out);
}

static Status add_chat(const DataFormat *format, TokenizerScratch *scratch, const JsonValue *messages, const SampleSink *out) {
    const DataFormatSettings *s = &format->settings;
    SampleText sample = {0};
    MessageOrder *orders = calloc(json_value_size(messages) + 1, sizeof *orders);
    TRY_ALLOC(orders);
    Status status = plan_orders(messages, orders);
    if (!status) status = chat_sample(messages, orders, NULL, &sample);
    if (!status && out->samples)
        status = sample_text_encode(&sample, s->tokenizer, scratch, s->max_length, s->truncate, out->samples);
    else if (!status)
        status = add_last_answer(format, scratch, messages, &sample, out->examples);
    sample_text_free(&sample);
    free(orders);
    return status;
}

static Status convert_chat(const DataFormat *format, TokenizerScratch *scratch, const JsonValue *record, const SampleSink *out) {
    JsonValue *messages;
    TRY(json_value_get_array(record, "messages", &messages));
    if (!json_value_size(messages)) INVALID("\"messages\" is empty");
    const JsonValue *tools = json_value_get(record, "tools");
    if (tools && !json_value_is_null(tools)) INVALID("\"tools\" are not supported");
    Message first;
    TRY(read_message(messages, 0, &first));
    if (!*format->settings.system || !strcmp(first.role, "system")) return add_chat(format, scratch, messages, out);
    JsonValue *extended = NULL;
    Status status = with_system(format, messages, &extended);
    if (!status) status = add_chat(format, scratch, extended, out);
    json_value_free(extended);
    return status;
}

const DataFormatFamily data_format_chat = {.name = "chat", .fields = {"messages"}, .convert = convert_chat};
