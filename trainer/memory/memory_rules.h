/* The cue phrases and limits by which code keeps the structured memory (trainer/memory/structure_update.h). They are data:
 * configs/prompts/memory_rules.json, built into the program, or a file of the same form. */
#ifndef TRAINER_MEMORY_RULES_H
#define TRAINER_MEMORY_RULES_H

#include "io/buffer.h"
#include "io/string_list.h"

#include <stdbool.h>

typedef struct MemoryRules {
    double question_overlap, problem_overlap; /* thresholds of folded_overlap, 0 < x <= 1 */
    int64_t focus_words, item_words;          /* longer entries are cut */
    /* Phrases in folded form (io/words.h). */
    StringList goal, user_facts, assistant_facts, decisions, open_problems, solutions, yes_no_answers, abbreviations;
    Text stop_words; /* one folded form */
} MemoryRules;

/* path NULL: the rules built in. STATUS_INVALID names file and key: missing, unknown, of a wrong type, out of range, a phrase
 * without a word. */
Status memory_rules_load(const char *path, MemoryRules *out);
void memory_rules_free(MemoryRules *rules);

/* Whether a folded text holds one of the phrases. */
bool memory_phrase_inside(const StringList *phrases, const char *folded);
/* Whether it begins with one. */
bool memory_phrase_first(const StringList *phrases, const char *folded);

#endif
