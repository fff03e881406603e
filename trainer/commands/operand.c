#include "trainer/commands/operand.h"

#include <stdbool.h>
#include <string.h>

/* True for "--name" of an option whose value is the next argument; getopt_long accepts an abbreviated name. */
static bool value_follows(const char *argument, const struct option *options) {
    if (strncmp(argument, "--", 2) || strchr(argument, '=')) return false;
    for (; options->name; ++options)
        if (!strncmp(options->name, argument + 2, strlen(argument + 2))) return options->has_arg == required_argument;
    return false;
}

const char *command_line_operand(int *argc, char **argv, const struct option *options) {
    for (int i = 1; i < *argc; ++i) {
        char *argument = argv[i];
        if (argument[0] == '-' && argument[1]) {
            if (value_follows(argument, options)) ++i;
            continue;
        }
        /* With the NULL at the end. */
        memmove(&argv[i], &argv[i + 1], (size_t)(*argc - i) * sizeof *argv);
        --*argc;
        return argument;
    }
    return NULL;
}
