/* What all sub-commands share when they read their options with getopt_long. */
#ifndef TRAINER_COMMAND_LINE_H
#define TRAINER_COMMAND_LINE_H

#include "io/json_value.h"
#include "io/status.h"

#include <getopt.h>

/* The next option of argv (as getopt_long returns it; -1 after the last) into *character. An unknown option is
 * STATUS_INVALID and names the nearest valid one; so are a missing and a superfluous value and, after the last option, an
 * argument that is none. options ends with a zero entry; there are no short options. Start with optind = 0. */
Status command_line_next(int argc, char **argv, const struct option *options, int *character);

/* A count given as an option's value: 0 <= value <= maximum. Errors name command and option. */
Status command_line_count(const char *command, const char *option, const char *text, long long maximum, long long *out);

/* A real number given as an option's value; whether it is sensible is for the caller to say. Errors name command and option. */
Status command_line_number(const char *command, const char *option, const char *text, double *out);

/* --config FILE and any number of --set KEY=VALUE; strings are borrowed from argv. */
typedef struct ConfigArguments {
    const char *config;
    const char **sets;
    size_t count;
} ConfigArguments;
#define CONFIG_ARGUMENT_OPTIONS                                                                                                  \
    {"config", required_argument, NULL, 'c'}, { "set", required_argument, NULL, 's' }
Status config_arguments_create(int argc, ConfigArguments *out); /* room for argc sets */
void config_arguments_free(ConfigArguments *arguments);

/* Writes results to a file, whole or not at all; path "-": to standard output. */
Status command_write_text(const char *path, const Text *text);
/* Prints one JSON object and a newline on standard output; frees it. status: of building it, passed on. */
Status command_print_json(JsonValue *object, Status status);

#endif
