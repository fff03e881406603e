#include "io/config_source.h"

#include "io/file.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { DEEPEST_INCLUDE = 10 };

typedef struct Scanner {
    ConfigSource *source;
    const char *p, *end;
    int file, line, depth;
} Scanner;

static Status add_bytes(ConfigSource *source, const char *name, const char *bytes, size_t length, int depth);

/* Notes where the line that begins now in the output came from. */
static Status begin_line(Scanner *s) {
    ConfigSource *source = s->source;
    if (source->line_count == source->line_capacity) {
        int capacity = source->line_capacity ? source->line_capacity * 2 : 64;
        ConfigSourceLine *lines;
        TRY_ALLOC(lines = realloc(source->lines, (size_t)capacity * sizeof *lines));
        source->lines = lines;
        source->line_capacity = capacity;
    }
    source->lines[source->line_count++] = (ConfigSourceLine){s->file, s->line};
    return STATUS_OK;
}

static Status copy(Scanner *s, size_t count) {
    for (const char *stop = s->p + count; s->p < stop; ++s->p) {
        if (!*s->p) INVALID("%s:%d: a NUL byte", s->source->files[s->file], s->line);
        TRY(text_append(&s->source->text, s->p, 1));
        if (*s->p != '\n') continue;
        ++s->line;
        TRY(begin_line(s));
    }
    return STATUS_OK;
}

static bool at(const Scanner *s, const char *word) {
    size_t length = strlen(word);
    return (size_t)(s->end - s->p) >= length && !memcmp(s->p, word, length);
}

static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_name_start(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '*' || c == '_'; }
static bool is_name(char c) { return is_name_start(c) || is_digit(c) || c == '-'; }

static size_t string_length(const Scanner *s) {
    const char *p = s->p + 1;
    while (p < s->end && *p != '"') p += *p == '\\' && p + 1 < s->end ? 2 : 1;
    return (size_t)(p - s->p) + (p < s->end);
}

static size_t line_length(const Scanner *s) {
    const char *newline = memchr(s->p, '\n', (size_t)(s->end - s->p));
    return newline ? (size_t)(newline - s->p) : (size_t)(s->end - s->p);
}

static size_t block_comment_length(const Scanner *s) {
    const char *p = s->p + 2;
    while (p + 1 < s->end && (p[0] != '*' || p[1] != '/')) ++p;
    return p + 1 < s->end ? (size_t)(p + 2 - s->p) : (size_t)(s->end - s->p);
}

/* A run of number characters. Only whole integers without a suffix are looked at; the rest is libconfig's business. */
static Status scan_number(Scanner *s) {
    const char *p = s->p + 1;
    while (p < s->end && (is_name(*p) || *p == '.' || *p == '+') && !(*p == '-' && p[-1] != 'e' && p[-1] != 'E')) ++p;
    char number[64];
    size_t length = (size_t)(p - s->p);
    if (length >= sizeof number) return copy(s, length);
    memcpy(number, s->p, length);
    number[length] = 0;
    char *rest;
    bool hexadecimal = number[0] == '0' && (number[1] | 32) == 'x';
    errno = 0;
    /* Hexadecimal numbers may fill all 64 bits, as in C. */
    int64_t value = hexadecimal ? (int64_t)strtoull(number, &rest, 16) : strtoll(number, &rest, 10);
    if (*rest || rest == number) return copy(s, length);
    if (errno == ERANGE) INVALID("%s:%d: %s does not fit into a 64-bit integer", s->source->files[s->file], s->line, number);
    TRY(copy(s, length));
    return value > INT32_MAX || value < INT32_MIN ? text_append(&s->source->text, "L", 1) : STATUS_OK;
}

static Status include_file(Scanner *s, const char *name, size_t length) {
    const char *including = s->source->files[s->file], *slash = strrchr(including, '/');
    Text path = {0}, content = {0};
    Status status = STATUS_OK;
    if (s->depth == DEEPEST_INCLUDE) {
        status = INVALID_INPUT("included files are nested more than %d deep", DEEPEST_INCLUDE);
        goto done;
    }
    if (slash && name[0] != '/') TRY_GOTO(text_append(&path, including, (size_t)(slash - including) + 1), done);
    TRY_GOTO(text_append(&path, name, length), done);
    TRY_GOTO(file_read(path.data, &content), done);
done:
    status_prefix(status, "%s:%d", including, s->line);
    if (!status) status = text_append(&s->source->text, "\n", 1);
    if (!status) status = add_bytes(s->source, path.data, content.data, content.length, s->depth + 1);
    if (!status) status = text_append(&s->source->text, "\n", 1);
    if (!status) status = begin_line(s);
    text_free(&path);
    text_free(&content);
    return status;
}

/* @include "FILE": the only directive there is. */
static Status scan_directive(Scanner *s) {
    static const char word[] = "@include";
    const char *p = s->p + sizeof word - 1;
    if (!at(s, word)) return copy(s, 1);
    while (p < s->end && (*p == ' ' || *p == '\t')) ++p;
    const char *name = p + 1, *quote = p < s->end && *p == '"' ? memchr(name, '"', (size_t)(s->end - name)) : NULL;
    if (!quote || memchr(name, '\n', (size_t)(quote - name)))
        INVALID("%s:%d: expected @include \"FILE\"", s->source->files[s->file], s->line);
    TRY(include_file(s, name, (size_t)(quote - name)));
    s->p = quote + 1;
    return STATUS_OK;
}

static Status scan(Scanner *s) {
    TRY(begin_line(s));
    while (s->p < s->end) {
        char c = *s->p, next = s->p + 1 < s->end ? s->p[1] : 0;
        if (c == '"')
            TRY(copy(s, string_length(s)));
        else if (c == '#' || at(s, "//"))
            TRY(copy(s, line_length(s)));
        else if (at(s, "/*"))
            TRY(copy(s, block_comment_length(s)));
        else if (c == '@')
            TRY(scan_directive(s));
        else if (is_digit(c) || ((c == '-' || c == '+' || c == '.') && is_digit(next)))
            TRY(scan_number(s));
        else if (is_name_start(c)) {
            size_t length = 1;
            while (s->p + length < s->end && is_name(s->p[length])) ++length;
            TRY(copy(s, length));
        } else
            TRY(copy(s, 1));
    }
    return STATUS_OK;
}

static Status add_bytes(ConfigSource *source, const char *name, const char *bytes, size_t length, int depth) {
    char **files, *copied;
    TRY_ALLOC(files = realloc(source->files, ((size_t)source->file_count + 1) * sizeof *files));
    source->files = files;
    TRY_ALLOC(copied = strdup(name));
    source->files[source->file_count++] = copied;
    if (!length) bytes = "";
    return scan(&(Scanner){source, bytes, bytes + length, source->file_count - 1, 1, depth});
}

Status config_source_add(ConfigSource *source, const char *name, const char *bytes, size_t length) {
    TRY(add_bytes(source, name, bytes, length, 0));
    return text_append(&source->text, "", 0); /* an empty file is an empty text, not a NULL one */
}

const char *config_source_line(const ConfigSource *source, int line, int *number) {
    bool inside = line >= 1 && line <= source->line_count;
    *number = inside ? source->lines[line - 1].number : 0;
    return source->files[inside ? source->lines[line - 1].file : 0];
}

void config_source_free(ConfigSource *source) {
    for (int i = 0; i < source->file_count; ++i) free(source->files[i]);
    free(source->files);
    free(source->lines);
    text_free(&source->text);
    *source = (ConfigSource){0};
}
