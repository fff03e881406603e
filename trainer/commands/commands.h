/* The sub-commands of adamem, one per file. Each takes its own argument vector, whose first element is its name, prints
 * results on standard output, and returns a Status that decides the exit status. `--help` prints usage and succeeds. */
#ifndef TRAINER_COMMANDS_H
#define TRAINER_COMMANDS_H

#include "io/status.h"

/* JSON lines of text, ids or messages to ids or text, in order, on all threads. */
Status command_tokenize(int argc, char **argv);

/* Reads, templates, tokenizes and cuts the data of a configuration once; prints counts as JSON. Collective. */
Status command_prepare(int argc, char **argv);

#endif
