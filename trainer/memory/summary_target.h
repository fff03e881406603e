/* Target summaries of generated memory training data: what a narrative memory must state, put into words by rules.
 *
 * A target consists, in this order and as far as TARGET_WORDS allow, of a sentence about the current focus, one about the goal,
 * and one each about the newest unresolved questions, decisions and open problems (TARGET_ITEMS of each, every item cut to
 * TARGET_ITEM_WORDS and quoted as it was said), one about the active document, and, where there is one, the summary that a
 * person wrote. Which wording a sentence takes is drawn. What was stated is returned as `slots`, so that a prediction can be
 * asked for it (trainer/metrics/slot_recall.h). */
#ifndef TRAINER_SUMMARY_TARGET_H
#define TRAINER_SUMMARY_TARGET_H

#include "io/random.h"
#include "trainer/memory/session_memory.h"

/* With max_new_tokens 160 at inference a target must stay near 100 words. */
enum { TARGET_WORDS = 100, TARGET_ITEMS = 2, TARGET_ITEM_WORDS = 16 };

typedef enum TargetSlot { SLOT_FOCUS, SLOT_GOAL, SLOT_QUESTIONS, SLOT_DECISIONS, SLOT_PROBLEMS, SLOT_DOCUMENT, SLOTS } TargetSlot;
/* "current_focus", "goal", "unresolved_questions", "decisions", "open_problems", "active_document". */
extern const char *const target_slot_keys[SLOTS];

typedef struct TargetPhrases {
    StringList phrases[SLOTS]; /* each with one "{}" */
} TargetPhrases;
/* The phrases of configs/prompts/memory_targets.json, which are built in. */
Status target_phrases_load(TargetPhrases *out);
void target_phrases_free(TargetPhrases *phrases);

/* memory: after the session. document: the fact about it, or NULL. summary: "" when there is none. Appends the text to *out;
 * *slots (caller frees): {"current_focus": [...], "goal": [...], ...}, every key an array of the texts that were stated. */
Status summary_target(const TargetPhrases *phrases, const SessionMemory *memory, const char *document, const char *summary,
                      RandomStream *random, Text *out, JsonValue **slots);

#endif
