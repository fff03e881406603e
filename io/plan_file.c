#include "io/plan_file.h"

#include "io/file.h"
#include "io/sha256.h"

#include <stdio.h>
#include <string.h>

static const char first_line[] = "adamem matmul plans 1\n", family[] = "adamem matmul plans ";

static void digest(const char *library, const char *bytes, size_t length, char hex[65]) {
    Sha256 hash;
    sha256_init(&hash);
    sha256_update(&hash, library, strlen(library) + 1);
    sha256_update(&hash, bytes, length);
    sha256_hex(&hash, hex);
}

Status plan_file_write(const char *path, const char *library, const char *bytes, size_t length) {
    Text text = {0};
    char hex[65];
    digest(library, bytes, length, hex);
    Status status = text_append_format(&text, "%slibrary: %s\nbytes: %zu sha256: %s\n", first_line, library, length, hex);
    if (!status) status = text_append(&text, bytes, length);
    if (!status) status = file_write_atomic(path, text.data, text.length);
    text_free(&text);
    return status;
}

/* Cuts the header off the file's text; *at: where the bytes begin. */
static Status read_header(const char *path, const Text *file, char library[128], char hex[65], size_t *at) {
    size_t length;
    int used = 0;
    if (file->length < sizeof family || memcmp(file->data, family, strlen(family)) != 0)
        INVALID("%s: not a file of matmul plans", path);
    if (memcmp(file->data, first_line, strlen(first_line)) != 0) INVALID("%s: of another version of this program", path);
    if (sscanf(file->data + strlen(first_line), "library: %127[^\n]\nbytes: %zu sha256: %64[0-9a-f]%n", library, &length, hex,
               &used) != 3)
        INVALID("%s: broken header", path);
    *at = strlen(first_line) + (size_t)used + 1;
    if (*at > file->length || file->data[*at - 1] != '\n') INVALID("%s: broken header", path);
    if (file->length - *at != length)
        INVALID("%s: holds %zu bytes of plans, not the %zu that its header tells", path, file->length - *at, length);
    return STATUS_OK;
}

Status plan_file_read(const char *path, char library[128], Text *bytes) {
    Text file = {0};
    char hex[65], actual[65];
    size_t at = 0;
    *bytes = (Text){0};
    TRY(file_read(path, &file));
    Status status = read_header(path, &file, library, hex, &at);
    if (!status) digest(library, file.data + at, file.length - at, actual);
    if (!status && strcmp(hex, actual) != 0) status = INVALID_INPUT("%s: damaged: its checksum does not fit", path);
    if (!status) status = text_append(bytes, file.data + at, file.length - at);
    text_free(&file);
    return status;
}
