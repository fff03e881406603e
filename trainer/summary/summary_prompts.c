#include "trainer/summary/summary_prompts.h"

#include "io/chat_template.h"
#include "io/prompt_files.h"
#include "io/text_template.h"

#include <string.h>

const char *const summary_style_names[SUMMARY_STYLES] = {"chat", "plain", "qwen_sum"};

static const char *const step_files[SUMMARY_STEPS] = {"summarize_map.txt", "summarize_reduce.txt"};

Status summary_style_by_name(const char *name, SummaryStyle *out) {
    for (int style = 0; style < SUMMARY_STYLES; ++style)
        if (!strcmp(summary_style_names[style], name)) return *out = (SummaryStyle)style, STATUS_OK;
    INVALID("\"%s\" is not chat, plain or qwen_sum", name);
}

static const char *built_in(SummaryStyle style, SummaryStep step) {
    if (style == SUMMARY_QWEN_SUM) return prompt_summarize_qwen_sum;
    return step == SUMMARY_MAP ? prompt_summarize_map : prompt_summarize_reduce;
}

/* Puts the literal text in front of the only field into *before, the rest into *after. */
static Status split_template(const char *name, const char *source, Text *before, Text *after) {
    static const char *const fields[] = {"document", NULL};
    TextTemplate parsed;
    int found = 0;
    TRY(text_template_parse(name, source, fields, &parsed));
    Status status = STATUS_OK;
    for (size_t i = 0; i < parsed.count && !status; ++i) {
        const TemplatePart *part = &parsed.parts[i];
        if (part->field != TEMPLATE_LITERAL)
            ++found;
        else
            status = text_append(found ? after : before, parsed.literals.data + part->offset, part->length);
    }
    text_template_free(&parsed);
    TRY(status);
    if (found != 1) INVALID("%s: the field {document} must be there once, found %d times", name, found);
    return STATUS_OK;
}

/* A noncharacter: nobody writes it, and no template touches it. */
static const char place_holder[] = "\xEF\xBF\xBF";

static Status render_chat(const char *name, Text *before, Text *after) {
    JsonValue *messages = json_value_new_array(), *message = json_value_new_object();
    Text content = {0}, chat = {0};
    Status status = messages ? json_value_append(messages, message) : FAILURE("out of memory: messages");
    if (!status) status = text_append(&content, before->data ? before->data : "", before->length);
    if (!status) status = text_append_string(&content, place_holder);
    if (!status) status = text_append(&content, after->data ? after->data : "", after->length);
    if (!status) status = json_value_set_string(message, "role", "user");
    if (!status) status = json_value_set(message, "content", json_value_new_string(content.data, content.length));
    if (!status) status = chat_template_render(messages, true, &chat, NULL, NULL);
    json_value_free(messages);
    text_free(&content);
    const char *place = status ? NULL : strstr(chat.data, place_holder);
    if (!status && (!place || strstr(place + 1, place_holder))) status = INVALID_INPUT("%s: holds U+FFFF", name);
    text_clear(before);
    text_clear(after);
    if (!status) status = text_append(before, chat.data, (size_t)(place - chat.data));
    if (!status) status = text_append_string(after, place + sizeof place_holder - 1);
    text_free(&chat);
    return status;
}

static Status load_step(SummaryPrompts *prompts, SummaryStyle style, SummaryStep step, const char *file) {
    Text *before = &prompts->steps[step].before, *after = &prompts->steps[step].after, source = {0};
    TRY(text_append(before, "", 0));
    TRY(text_append(after, "", 0));
    Status status = file ? prompt_file_read(file, &source) : text_append_string(&source, built_in(style, step));
    const char *name = file ? file : step_files[step];
    if (!status) status = split_template(name, source.data, before, after);
    text_free(&source);
    if (!status && style == SUMMARY_CHAT) status = render_chat(name, before, after);
    TRY(status);
    TRY(tokenizer_encode(prompts->tokenizer, prompts->scratch, before->data, before->length, &prompts->steps[step].before_ids));
    TRY(tokenizer_encode(prompts->tokenizer, prompts->scratch, after->data, after->length, &prompts->steps[step].after_ids));
    int64_t tokens = (int64_t)(prompts->steps[step].before_ids.count + prompts->steps[step].after_ids.count);
    if (tokens > prompts->tokens) prompts->tokens = tokens;
    return STATUS_OK;
}

Status summary_prompts_load(SummaryStyle style, const char *const files[SUMMARY_STEPS], const Tokenizer *tokenizer,
                            TokenizerScratch *scratch, const char *model, SummaryPrompts *out) {
    *out = (SummaryPrompts){.tokenizer = tokenizer, .scratch = scratch};
    if (style == SUMMARY_CHAT) TRY(chat_template_check(tokenizer_chat_template(tokenizer), model));
    Status status = STATUS_OK;
    for (int step = 0; step < SUMMARY_STEPS && !status; ++step) status = load_step(out, style, (SummaryStep)step, files[step]);
    if (status) summary_prompts_free(out);
    return status;
}

void summary_prompts_free(SummaryPrompts *prompts) {
    for (int step = 0; step < SUMMARY_STEPS; ++step) {
        text_free(&prompts->steps[step].before);
        text_free(&prompts->steps[step].after);
        token_list_free(&prompts->steps[step].before_ids);
        token_list_free(&prompts->steps[step].after_ids);
    }
    text_free(&prompts->joined);
}

Status summary_prompt_encode(SummaryPrompts *prompts, SummaryStep step, const TokenText *text, Chunk chunk, TokenList *ids) {
    const Text *before = &prompts->steps[step].before, *after = &prompts->steps[step].after;
    const TokenList *before_ids = &prompts->steps[step].before_ids, *after_ids = &prompts->steps[step].after_ids;
    size_t start = (size_t)text->starts[chunk.begin], bytes = (size_t)text->starts[chunk.end] - start;
    size_t tokens = (size_t)(chunk.end - chunk.begin), kept = ids->count;
    if (text->places[chunk.begin] != CUT_CHARACTER_INSIDE && text->places[chunk.end] != CUT_CHARACTER_INSIDE) {
        text_clear(&prompts->joined);
        TRY(text_append(&prompts->joined, before->data, before->length));
        TRY(text_append(&prompts->joined, text->bytes.data + start, bytes));
        TRY(text_append(&prompts->joined, after->data, after->length));
        TRY(tokenizer_encode(prompts->tokenizer, prompts->scratch, prompts->joined.data, prompts->joined.length, ids));
        if (ids->count - kept <= before_ids->count + tokens + after_ids->count) return STATUS_OK;
        ids->count = kept;
    }
    TRY(token_list_append(ids, before_ids->ids, before_ids->count));
    TRY(token_list_append(ids, text->tokens.ids + chunk.begin, tokens));
    return token_list_append(ids, after_ids->ids, after_ids->count);
}
