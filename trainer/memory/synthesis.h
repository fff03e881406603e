/* Memory training data out of real dialogues: a dialogue is cut into sessions, and every session becomes one record of format
 * memory {previous_memory, recent_turns, active_document, summary}, whose previous memory is what code and targets left after
 * the sessions before it, so goals change, questions get answered and decisions pile up along a dialogue. A further member
 * `slots` says what the summary states.
 *
 * Everything drawn (who is the user, where sessions end, which have a document, wordings) is a function of the seed and of the
 * record's number: the same input gives the same bytes, in any order. A session has SESSION_TURNS_LEAST to SESSION_TURNS_MOST
 * turns; a rest shorter than the least joins the last session. The summary that a person wrote of the whole dialogue ends the
 * target of its last session; in three of ten dialogues of at least twice SESSION_TURNS_MOST turns it is instead the active
 * document, from the first session on. Sessions whose target states nothing but the focus are left out and counted. */
#ifndef TRAINER_SYNTHESIS_H
#define TRAINER_SYNTHESIS_H

#include "trainer/memory/memory_rules.h"
#include "trainer/memory/summary_target.h"

enum { SESSION_TURNS_LEAST = 3, SESSION_TURNS_MOST = 8 };

typedef struct SynthesisCounts {
    int64_t dialogues, sessions, samples, left_out;
    int64_t slots[SLOTS]; /* samples that state it */
} SynthesisCounts;

typedef struct Synthesis {
    const MemoryRules *rules;
    const TargetPhrases *phrases;
    const char *format; /* of dialogue_read */
    uint64_t seed;
    int64_t most_samples; /* 0: no limit */
    SynthesisCounts counts;
} Synthesis;

/* Appends the JSON lines of one record, while fewer than most_samples are made; number: of its line. STATUS_INVALID names the
 * field. */
Status synthesis_add(Synthesis *synthesis, const JsonValue *record, int64_t number, Text *out);

#endif
