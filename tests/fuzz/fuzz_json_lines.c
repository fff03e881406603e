/* Any bytes are lines or one clean error; what parses is written and reads back to the same text. */
#define _GNU_SOURCE /* memfd_create */
#include "io/json_lines.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool condition, const char *what) {
    if (condition) return;
    fprintf(stderr, "%s\n", what);
    abort();
}

static void check_round_trip(const JsonValue *object) {
    Text text = {0}, again = {0};
    JsonValue *copy = NULL;
    check(!json_value_write(object, 0, &text), "cannot write what was read");
    check(!json_value_parse(text.data, text.length, &copy), "cannot read what was written");
    check(!json_value_write(copy, 0, &again), "cannot write the copy");
    check(text.length == again.length && !memcmp(text.data, again.data, text.length), "the copy differs");
    json_value_free(copy);
    text_free(&text);
    text_free(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    int descriptor = memfd_create("input", MFD_CLOEXEC);
    check(descriptor >= 0 && write(descriptor, data, size) == (ssize_t)size, "no memory file");
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", descriptor);
    JsonLines *reader = NULL;
    Status status = json_lines_open(path, &reader);
    int64_t number = 0;
    while (!status) {
        JsonValue *object;
        status = json_lines_next_object(reader, &object);
        if (!status && !object) break;
        if (status) continue;
        check(json_lines_number(reader) > number, "line numbers do not grow");
        number = json_lines_number(reader);
        check_round_trip(object);
        json_value_free(object);
    }
    if (status) check(status_exit_code(status) == STATUS_INVALID && strstr(status_message(status), path), "not a clean error");
    status_free(status);
    json_lines_close(reader);
    close(descriptor);
    return 0;
}
