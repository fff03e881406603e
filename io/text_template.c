#include "io/text_template.h"

#include <stdlib.h>
#include <string.h>

static Status add_part(TextTemplate *t, int field, size_t offset, size_t length) {
    if (field == TEMPLATE_LITERAL && !length) return STATUS_OK;
    TemplatePart *parts;
    TRY_ALLOC(parts = realloc(t->parts, (t->count + 1) * sizeof *parts));
    t->parts = parts;
    parts[t->count++] = (TemplatePart){field, offset, length};
    return STATUS_OK;
}

static Status unknown_field(const char *key, const char *name, size_t length, const char *const *field_names) {
    Text known = {0};
    Status status = STATUS_OK;
    for (int i = 0; field_names[i] && !status; ++i) status = text_append_format(&known, "%s%s", i ? ", " : "", field_names[i]);
    if (!status)
        status = INVALID_INPUT("%s: unknown field {%.*s}; fields of this format: %s", key, (int)(length < 200 ? length : 200),
                               name, known.data ? known.data : "none");
    text_free(&known);
    return status;
}

static Status parse_field(const char *key, const char *start, const char *const *field_names, int *field, const char **end) {
    const char *close = strchr(start, '}');
    if (!close) INVALID("%s: \"{\" without \"}\"; write \"{{\" for a literal brace", key);
    size_t length = (size_t)(close - start);
    for (int i = 0; field_names[i]; ++i) {
        if (strlen(field_names[i]) == length && !memcmp(field_names[i], start, length)) {
            *field = i;
            *end = close + 1;
            return STATUS_OK;
        }
    }
    return unknown_field(key, start, length, field_names);
}

static Status parse(const char *key, const char *source, const char *const *field_names, TextTemplate *out) {
    size_t literal = 0;
    for (const char *p = source; *p;) {
        if ((p[0] == '{' || p[0] == '}') && p[1] == p[0]) {
            TRY(text_append(&out->literals, p, 1));
            p += 2;
        } else if (p[0] == '{') {
            TRY(add_part(out, TEMPLATE_LITERAL, literal, out->literals.length - literal));
            literal = out->literals.length;
            int field = 0;
            TRY(parse_field(key, p + 1, field_names, &field, &p));
            TRY(add_part(out, field, 0, 0));
        } else {
            size_t run = strcspn(p + 1, "{}") + 1;
            TRY(text_append(&out->literals, p, run));
            p += run;
        }
    }
    return add_part(out, TEMPLATE_LITERAL, literal, out->literals.length - literal);
}

Status text_template_parse(const char *key, const char *source, const char *const *field_names, TextTemplate *out) {
    *out = (TextTemplate){0};
    Status status = parse(key, source, field_names, out);
    if (status) text_template_free(out);
    return status;
}

void text_template_free(TextTemplate *t) {
    text_free(&t->literals);
    free(t->parts);
    *t = (TextTemplate){0};
}
