#include "trainer/commands/command_line.h"

#include "io/edit_distance.h"
#include "io/file.h"
#include "trainer/commands/commands.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static Status unknown_option(const char *command, const char *written, const struct option *options) {
    char name[64];
    const char *names[64];
    int count = 0;
    for (; options[count].name && count < 64; ++count) names[count] = options[count].name;
    const char *start = written + strspn(written, "-");
    size_t length = strcspn(start, "=");
    if (length >= sizeof name) INVALID("%s: unknown option %s", command, written);
    memcpy(name, start, length);
    name[length] = 0;
    for (int i = 0; i < count; ++i)
        if (!strcmp(name, names[i])) INVALID("%s: option --%s takes no value", command, name);
    int nearest = nearest_name(name, names, count);
    if (nearest < 0) INVALID("%s: unknown option %s", command, written);
    INVALID("%s: unknown option %s; the nearest is --%s", command, written, names[nearest]);
}

Status command_line_next(int argc, char **argv, const struct option *options, int *character) {
    int at = optind ? optind : 1;
    opterr = 0;
    *character = getopt_long(argc, argv, "+:", options, NULL);
    const char *written = at < argc ? argv[at] : "";
    if (*character == ':') INVALID("%s: option %s needs a value", argv[0], written);
    if (*character == '?') return unknown_option(argv[0], written, options);
    if (*character == -1 && optind < argc) INVALID("%s: unexpected argument \"%s\"", argv[0], argv[optind]);
    return STATUS_OK;
}

Status command_line_count(const char *command, const char *option, const char *text, long long maximum, long long *out) {
    char *end;
    *out = strtoll(text, &end, 10);
    if (end == text || *end || *out < 0 || *out > maximum)
        INVALID("%s: --%s %s: expected a whole number from 0 to %lld", command, option, text, maximum);
    return STATUS_OK;
}

Status command_line_number(const char *command, const char *option, const char *text, double *out) {
    char *end;
    *out = strtod(text, &end);
    if (end == text || *end || *out != *out) INVALID("%s: --%s %s: expected a number", command, option, text);
    return STATUS_OK;
}

Status config_arguments_create(int argc, ConfigArguments *out) {
    *out = (ConfigArguments){0};
    TRY_ALLOC(out->sets = calloc((size_t)argc + 8, sizeof *out->sets)); /* commands add a few of their own */
    return STATUS_OK;
}

void config_arguments_free(ConfigArguments *arguments) { free(arguments->sets); }

Status command_write_text(const char *path, const Text *text) {
    const char *bytes = text->data ? text->data : "";
    if (strcmp(path, "-")) return file_write_atomic(path, bytes, text->length);
    if (fwrite(bytes, 1, text->length, stdout) != text->length || fflush(stdout)) FAIL("cannot write to standard output");
    return STATUS_OK;
}

Status command_print_json(JsonValue *object, Status status) {
    Text text = {0};
    if (!status) status = json_value_write(object, 0, &text);
    if (!status && (puts(text.data) < 0 || fflush(stdout) != 0)) status = FAILURE("cannot write to standard output");
    text_free(&text);
    json_value_free(object);
    return status;
}

Status command_unknown(const char *name, const char *const *names, size_t count) {
    int nearest = nearest_name(name, names, (int)count);
    INVALID("unknown sub-command \"%s\"; the nearest is %s (adamem --help lists all)", name, names[nearest]);
}
