/* The one argument that is not an option: `adamem inspect PATH --json`, in any order. */
#ifndef TRAINER_OPERAND_H
#define TRAINER_OPERAND_H

#include <getopt.h>

/* Takes the first operand out of argv (the value of an option is none) and shortens argc; NULL when there is none. Call
 * before command_line_next, with the same options. */
const char *command_line_operand(int *argc, char **argv, const struct option *options);

#endif
