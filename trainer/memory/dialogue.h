/* Real dialogues as sessions between a user and an assistant: what the generator of memory training data cuts up. */
#ifndef TRAINER_DIALOGUE_H
#define TRAINER_DIALOGUE_H

#include "io/json_value.h"
#include "io/random.h"
#include "io/string_list.h"

typedef struct DialogueTurn {
    bool user;
    char *text; /* squeezed, never empty */
} DialogueTurn;

typedef struct Dialogue {
    DialogueTurn *turns; /* neighbours have different roles */
    size_t count, capacity;
    Text name, summary; /* summary: of the whole dialogue, by a person; empty when there is none */
} Dialogue;

/* Formats: dialogsum and samsum {dialogue of "NAME: text" lines, summary}, qmsum {meeting_transcripts, general_query_list}, chat
 * {messages}. One of the speakers, drawn from *random, becomes the user, all others the assistant; where these are several,
 * their turns begin with their names. Marks of transcribers ("{vocalsound}") are left out, a chat's system messages too.
 * number: of the line, for records without a name. STATUS_INVALID names the field. */
Status dialogue_read(const char *format, const JsonValue *record, int64_t number, RandomStream *random, Dialogue *out);
void dialogue_free(Dialogue *dialogue);
/* STATUS_INVALID with the known names. */
Status dialogue_check_format(const char *format);

#endif
