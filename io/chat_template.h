/* ChatML as Qwen2.5's own Jinja template renders it: <|im_start|>role\ncontent<|im_end|>\n, with the default system
 * message when the first message is not a system message.
 *
 * There is no Jinja engine here: the template of a model directory is compared with the known Qwen2.5 template, and
 * another one is refused by name, never mis-rendered. Tools and tool calls are refused. */
#ifndef IO_CHAT_TEMPLATE_H
#define IO_CHAT_TEMPLATE_H

#include "io/buffer.h"
#include "io/json_value.h"

#include <stdbool.h>

typedef struct ChatSpan {
    size_t start, end; /* byte range in the rendered text */
} ChatSpan;

/* The template itself, as Qwen2.5-Instruct ships it. */
extern const char chat_template_qwen2_5[];

/* STATUS_INVALID unless template_text (may be NULL: then ChatML is assumed) is Qwen2.5's. name: for the message. */
Status chat_template_check(const char *template_text, const char *name);
/* messages: array of {"role": "system"|"user"|"assistant", "content": string}. Appends to out. When spans is not NULL,
 * *spans (malloc'd) receives for every assistant message the range of its content including <|im_end|> but not the
 * newline after it: the bytes that supervised fine-tuning trains on. */
Status chat_template_render(const JsonValue *messages, bool add_generation_prompt, Text *out, ChatSpan **spans,
                            size_t *span_count);

#endif
