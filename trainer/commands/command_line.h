/* What all sub-commands share when they read their options with getopt_long. */
#ifndef TRAINER_COMMAND_LINE_H
#define TRAINER_COMMAND_LINE_H

#include "io/status.h"

#include <getopt.h>

/* The next option of argv (as getopt_long returns it; -1 after the last) into *character. An unknown option is
 * STATUS_INVALID and names the nearest valid one; so are a missing and a superfluous value and, after the last option, an
 * argument that is none. options ends with a zero entry; there are no short options. Start with optind = 0. */
Status command_line_next(int argc, char **argv, const struct option *options, int *character);

#endif
