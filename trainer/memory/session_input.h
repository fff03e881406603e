/* The files of a session as users have them: memory, turns, document. */
#ifndef TRAINER_SESSION_INPUT_H
#define TRAINER_SESSION_INPUT_H

#include "io/json_value.h"

/* One JSON value; "-" is standard input. STATUS_INVALID names file, line and column. Caller frees. */
Status session_input_value(const char *path, JsonValue **out);
/* Turns {"role", "text"}: a JSON array, or JSON lines with one turn each, plain or compressed; "-" is standard input. The turns
 * themselves are not looked at. Caller frees. */
Status session_input_turns(const char *path, JsonValue **out);

#endif
