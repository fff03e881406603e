/* The parts of adamem memory; each takes its own argument vector, whose first element is "memory NAME". */
#ifndef TRAINER_COMMANDS_MEMORY_H
#define TRAINER_COMMANDS_MEMORY_H

#include "io/status.h"

/* A session's turns into the memory of the session before. */
Status command_memory_update(int argc, char **argv);
/* Dialogues into training data of format memory. */
Status command_memory_synthesize(int argc, char **argv);
/* How much of what summaries must state predictions state. */
Status command_memory_recall(int argc, char **argv);

#endif
