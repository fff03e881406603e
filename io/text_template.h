/* Templates of prompts and completions: text in which {field} stands for a member of the record.
 *
 * "{{" is a literal brace and so is "}}"; a single "}" outside a field is itself. */
#ifndef IO_TEXT_TEMPLATE_H
#define IO_TEXT_TEMPLATE_H

#include "io/buffer.h"

#define TEMPLATE_LITERAL (-1)

typedef struct TemplatePart {
    int field;             /* index into the field names, or TEMPLATE_LITERAL */
    size_t offset, length; /* of a literal, in TextTemplate.literals */
} TemplatePart;

typedef struct TextTemplate {
    Text literals;
    TemplatePart *parts;
    size_t count;
} TextTemplate;

/* field_names: NULL-terminated. Unknown fields and an unclosed "{" are STATUS_INVALID naming key and the valid fields. */
Status text_template_parse(const char *key, const char *source, const char *const *field_names, TextTemplate *out);
void text_template_free(TextTemplate *text_template);

#endif
