/* Session memory: what one session leaves to the next. A narrative, written by a model, and a structure, kept by code; as JSON
 * described by configs/prompts/session_memory.schema.json. */
#ifndef TRAINER_SESSION_MEMORY_H
#define TRAINER_SESSION_MEMORY_H

#include "io/json_value.h"
#include "io/string_list.h"

/* Entries a list keeps; the oldest leave first. The schema says the same. */
enum { MEMORY_LIST_ITEMS = 32 };

typedef enum MemoryListName { MEMORY_FACTS, MEMORY_QUESTIONS, MEMORY_DECISIONS, MEMORY_PROBLEMS, MEMORY_LISTS } MemoryListName;
/* "established_facts", "unresolved_questions", "decisions", "open_problems". */
extern const char *const memory_list_keys[MEMORY_LISTS];

typedef struct SessionMemory {
    Text narrative, goal, current_focus; /* data is never NULL between session_memory_read and _free */
    StringList lists[MEMORY_LISTS];      /* oldest first */
} SessionMemory;

/* From an object; members may be missing (an empty object is the memory of a new session), other members than the schema's
 * are refused. STATUS_INVALID names the key. */
Status session_memory_read(const JsonValue *object, SessionMemory *out);
Status session_memory_read_file(const char *path, SessionMemory *out);
void session_memory_free(SessionMemory *memory);

/* A new object with all members, in the schema's order. */
Status session_memory_to_json(const SessionMemory *memory, JsonValue **out);
/* Appends that object as JSON with an indentation of 2, non-ASCII unescaped, and a newline: the same memory always gives the
 * same bytes. */
Status session_memory_write(const SessionMemory *memory, Text *out);

/* Appends an entry unless its words stand there already (in any case and with any punctuation), and lets the oldest leave when
 * there are too many. *index (may be NULL): where the entry stands. */
Status memory_list_add(StringList *list, const char *entry, size_t *index);

#endif
