#include "io/chat_template.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/* clang-format off */
const char chat_template_qwen2_5[] =
    "{%- if tools %}\n"
    "    {{- '<|im_start|>system\\n' }}\n"
    "    {%- if messages[0]['role'] == 'system' %}\n"
    "        {{- messages[0]['content'] }}\n"
    "    {%- else %}\n"
    "        {{- 'You are Qwen, created by Alibaba Cloud. You are a helpful assistant.' }}\n"
    "    {%- endif %}\n"
    "    {{- \"\\n\\n# Tools\\n\\nYou may call one or more functions to assist with the user query.\\n\\nYou are provided with function signatures within <tools></tools> XML tags:\\n<tools>\" }}\n"
    "    {%- for tool in tools %}\n"
    "        {{- \"\\n\" }}\n"
    "        {{- tool | tojson }}\n"
    "    {%- endfor %}\n"
    "    {{- \"\\n</tools>\\n\\nFor each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:\\n<tool_call>\\n{\\\"name\\\": <function-name>, \\\"arguments\\\": <args-json-object>}\\n</tool_call><|im_end|>\\n\" }}\n"
    "{%- else %}\n"
    "    {%- if messages[0]['role'] == 'system' %}\n"
    "        {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}\n"
    "    {%- else %}\n"
    "        {{- '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\\n' }}\n"
    "    {%- endif %}\n"
    "{%- endif %}\n"
    "{%- for message in messages %}\n"
    "    {%- if (message.role == \"user\") or (message.role == \"system\" and not loop.first) or (message.role == \"assistant\" and not message.tool_calls) %}\n"
    "        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}\n"
    "    {%- elif message.role == \"assistant\" %}\n"
    "        {{- '<|im_start|>' + message.role }}\n"
    "        {%- if message.content %}\n"
    "            {{- '\\n' + message.content }}\n"
    "        {%- endif %}\n"
    "        {%- for tool_call in message.tool_calls %}\n"
    "            {%- if tool_call.function is defined %}\n"
    "                {%- set tool_call = tool_call.function %}\n"
    "            {%- endif %}\n"
    "            {{- '\\n<tool_call>\\n{\"name\": \"' }}\n"
    "            {{- tool_call.name }}\n"
    "            {{- '\", \"arguments\": ' }}\n"
    "            {{- tool_call.arguments | tojson }}\n"
    "            {{- '}\\n</tool_call>' }}\n"
    "        {%- endfor %}\n"
    "        {{- '<|im_end|>\\n' }}\n"
    "    {%- elif message.role == \"tool\" %}\n"
    "        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != \"tool\") %}\n"
    "            {{- '<|im_start|>user' }}\n"
    "        {%- endif %}\n"
    "        {{- '\\n<tool_response>\\n' }}\n"
    "        {{- message.content }}\n"
    "        {{- '\\n</tool_response>' }}\n"
    "        {%- if loop.last or (messages[loop.index0 + 1].role != \"tool\") %}\n"
    "            {{- '<|im_end|>\\n' }}\n"
    "        {%- endif %}\n"
    "    {%- endif %}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n"
    "    {{- '<|im_start|>assistant\\n' }}\n"
    "{%- endif %}\n";
/* clang-format on */

static const char default_system[] = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.";

/* Marks by which a foreign template is called by its family's name. */
static const struct {
    const char *mark, *family;
} families[] = {{"<|start_header_id|>", "Llama 3"},
                {"<start_of_turn>", "Gemma"},
                {"[INST]", "Mistral or Llama 2"},
                {"<|assistant|>", "Phi or Zephyr"},
                {"<think>", "Qwen3 or another reasoning model"},
                {"<|vision_start|>", "Qwen2-VL"},
                {"<|im_start|>", "ChatML other than Qwen2.5's"}};

/* Length without white space at the end, which rendering does not show. */
static size_t trimmed_length(const char *text) {
    size_t length = strlen(text);
    while (length && isspace((unsigned char)text[length - 1])) --length;
    return length;
}

Status chat_template_check(const char *template_text, const char *name) {
    if (!template_text) return STATUS_OK;
    size_t length = trimmed_length(template_text);
    if (length == trimmed_length(chat_template_qwen2_5) && !memcmp(template_text, chat_template_qwen2_5, length))
        return STATUS_OK;
    const char *family = "an unknown family";
    for (size_t i = sizeof families / sizeof *families; i-- > 0;)
        if (strstr(template_text, families[i].mark)) family = families[i].family;
    INVALID("%s: its chat template (%s) is not supported, only Qwen2.5's is", name, family);
}

static Status append_message(const char *role, const char *content, size_t length, Text *out) {
    TRY(text_append_format(out, "<|im_start|>%s\n", role));
    TRY(text_append(out, content, length));
    return text_append_string(out, "<|im_end|>\n");
}

/* Null and an empty list render as if absent. */
static bool is_given(const JsonValue *v) {
    return v && !json_value_is_null(v) && !(json_value_is_array(v) && !json_value_size(v));
}

static Status check_message(const JsonValue *message, const char **role, const char **content, size_t *length) {
    static const char *const refused[] = {"tool_calls", "function_call"};
    if (!json_value_is_object(message))
        INVALID("expected an object with role and content, found %s", json_value_type_name(message));
    TRY(json_value_get_string(message, "role", role, NULL));
    if (!strcmp(*role, "tool")) INVALID("role \"tool\" is not supported");
    if (strcmp(*role, "system") && strcmp(*role, "user") && strcmp(*role, "assistant"))
        INVALID("role \"%s\" is not system, user or assistant", *role);
    for (int i = 0; i < 2; ++i)
        if (is_given(json_value_get(message, refused[i]))) INVALID("\"%s\" is not supported", refused[i]);
    return json_value_get_string(message, "content", content, length);
}

static Status append_span(size_t start, size_t end, ChatSpan **spans, size_t *count) {
    ChatSpan *grown;
    TRY_ALLOC(grown = realloc(*spans, (*count + 1) * sizeof *grown));
    grown[(*count)++] = (ChatSpan){start, end};
    *spans = grown;
    return STATUS_OK;
}

static Status render_message(const JsonValue *message, bool first, Text *out, ChatSpan **spans, size_t *span_count) {
    const char *role, *content;
    size_t length;
    TRY(check_message(message, &role, &content, &length));
    if (first && strcmp(role, "system")) TRY(append_message("system", default_system, strlen(default_system), out));
    TRY(append_message(role, content, length, out));
    if (!spans || strcmp(role, "assistant")) return STATUS_OK;
    size_t end = out->length - 1; /* the newline */
    return append_span(end - strlen("<|im_end|>") - length, end, spans, span_count);
}

static Status render(const JsonValue *messages, bool add_generation_prompt, Text *out, ChatSpan **spans, size_t *span_count) {
    if (!json_value_is_array(messages)) INVALID("messages must be an array, found %s", json_value_type_name(messages));
    if (!json_value_size(messages)) INVALID("messages is empty");
    for (size_t i = 0; i < json_value_size(messages); ++i)
        TRY(status_prefix(render_message(json_value_at(messages, i), i == 0, out, spans, span_count), "messages[%zu]", i));
    return add_generation_prompt ? text_append_string(out, "<|im_start|>assistant\n") : STATUS_OK;
}

Status chat_template_render(const JsonValue *messages, bool add_generation_prompt, Text *out, ChatSpan **spans,
                            size_t *span_count) {
    if (spans) *spans = NULL, *span_count = 0;
    size_t length = out->length;
    Status status = render(messages, add_generation_prompt, out, spans, span_count);
    if (!status) return STATUS_OK;
    out->length = length; /* nothing half rendered */
    if (out->data) out->data[length] = 0;
    if (spans) {
        free(*spans);
        *spans = NULL;
        *span_count = 0;
    }
    return status;
}
