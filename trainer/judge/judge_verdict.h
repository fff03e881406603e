/* What a judge's replies mean, and what they add up to. */
#ifndef TRAINER_JUDGE_VERDICT_H
#define TRAINER_JUDGE_VERDICT_H

#include "trainer/judge/judge_prompts.h"

typedef struct JudgeVerdict {
    bool parsed;  /* the reply could be read */
    int score;    /* knowledge_edit: 1 to 5; 0 when not parsed */
    bool correct; /* longmemeval */
} JudgeVerdict;

/* knowledge_edit: the first whole number of the reply from 1 to 5; numbers with a decimal part, a minus sign or letters around
 * them are none. longmemeval: correct if and only if the reply has "yes" in it, letter case aside, as evaluate_qa.py reads it;
 * a reply with neither "yes" nor the word "no" is not correct and counts as not parsed. */
JudgeVerdict judge_verdict(JudgeTask task, const char *reply);

enum { JUDGE_TYPES = 64 };
typedef struct JudgeTally {
    int64_t judgements, parsed, correct, score_sum, scores[6]; /* scores[s]: replies with score s */
    int64_t abstentions, abstentions_correct;
    struct JudgeTypeTally {
        char name[64];
        int64_t judgements, parsed, correct, score_sum;
    } types[JUDGE_TYPES]; /* [type_count] in order of appearance */
    int type_count;
} JudgeTally;

/* Zero-initialise *tally before the first. STATUS_INVALID for more than JUDGE_TYPES types or a type of 64 bytes and more. */
Status judge_tally_add(JudgeTally *tally, const JudgeQuestion *question, JudgeVerdict verdict);
/* A new object: {"task", "judgements", "unparseable", ...}; longmemeval "accuracy" (not parsed = wrong), "abstention" and
 * "types" with accuracy and count; knowledge_edit "mean_score" over what was parsed, "scores" and "types". Values without
 * anything to average are null. */
Status judge_tally_json(const JudgeTally *tally, JudgeTask task, JsonValue **out);

#endif
