#include "io/prompt_files.h"

#include "io/file.h"
#include "io/utf8.h"

#include <string.h>

static Status check(const char *path, const Text *text) {
    size_t valid = utf8_valid_prefix(text->data, text->length);
    if (valid < text->length) INVALID("%s: invalid UTF-8 at byte %zu", path, valid);
    if (memchr(text->data, 0, text->length)) INVALID("%s: holds a NUL byte", path);
    return STATUS_OK;
}

Status prompt_file_read(const char *path, Text *out) {
    text_clear(out);
    TRY(text_append(out, "", 0));
    TRY(file_read(path, out));
    TRY(check(path, out));
    if (out->length && out->data[out->length - 1] == '\n') out->data[--out->length] = 0;
    return STATUS_OK;
}
