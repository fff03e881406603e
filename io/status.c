#include "io/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct StatusError {
    StatusClass class_;
    int shared;
    char *message;
    char positions[512];
};

static char out_of_memory_message[] = "out of memory while reporting an error";
static struct StatusError out_of_memory = {STATUS_FAILED, 0, out_of_memory_message, "status.c"};

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static char *format_message(const char *format, va_list arguments) {
    va_list copy;
    va_copy(copy, arguments);
    int length = vsnprintf(NULL, 0, format, copy);
    va_end(copy);
    char *text = length < 0 ? NULL : malloc((size_t)length + 1);
    if (text) vsnprintf(text, (size_t)length + 1, format, arguments);
    return text;
}

Status status_new(StatusClass class_, const char *file, int line, const char *format, ...) {
    Status status = malloc(sizeof *status);
    if (!status) return &out_of_memory;
    va_list arguments;
    va_start(arguments, format);
    status->message = format_message(format, arguments);
    va_end(arguments);
    if (!status->message) {
        free(status);
        return &out_of_memory;
    }
    status->class_ = class_;
    status->shared = 0;
    snprintf(status->positions, sizeof status->positions, "%s:%d", base_name(file), line);
    return status;
}

Status status_prefix(Status status, const char *format, ...) {
    if (!status || status == &out_of_memory) return status;
    va_list arguments;
    va_start(arguments, format);
    char *prefix = format_message(format, arguments);
    va_end(arguments);
    if (!prefix) return status;
    size_t size = strlen(prefix) + strlen(status->message) + 3;
    char *joined = malloc(size);
    if (joined) {
        snprintf(joined, size, "%s: %s", prefix, status->message);
        free(status->message);
        status->message = joined;
    }
    free(prefix);
    return status;
}

Status status_trace(Status status, const char *file, int line) {
    if (!status || status == &out_of_memory) return status;
    size_t used = strlen(status->positions);
    snprintf(status->positions + used, sizeof status->positions - used, " < %s:%d", base_name(file), line);
    return status;
}

Status status_mark_shared(Status status) {
    if (status && status != &out_of_memory) status->shared = 1;
    return status;
}

int status_is_shared(Status status) { return status && status->shared; }

void status_free(Status status) {
    if (!status || status == &out_of_memory) return;
    free(status->message);
    free(status);
}

const char *status_message(Status status) { return status ? status->message : "ok"; }
const char *status_positions(Status status) { return status ? status->positions : ""; }
int status_exit_code(Status status) { return status ? (int)status->class_ : 0; }
