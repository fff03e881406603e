/* The questions of a judge's run, with the replies that are to be judged. */
#ifndef TRAINER_JUDGE_INPUT_H
#define TRAINER_JUDGE_INPUT_H

#include "trainer/judge/judge_prompts.h"

typedef struct JudgeItem {
    JsonValue *record, *generated; /* own what question borrows; generated NULL: the record has the hypothesis */
    JudgeQuestion question;
    int64_t line; /* in the input */
} JudgeItem;

typedef struct JudgeInput {
    JudgeItem *items;
    int64_t count, capacity;
} JudgeInput;

/* path: lines as judge_question_read takes them. generated: NULL, or lines in the same order, each with the reply as "text" (what
 * adamem generate writes) or "hypothesis"; a "question_id" there must be that of the input's line. "-" is standard input.
 * STATUS_INVALID names file and line: another number of lines, an id that comes twice, no line at all. */
Status judge_input_read(JudgeTask task, const char *path, const char *generated, JudgeInput *out);
void judge_input_free(JudgeInput *input);

/* Appends lines {"question_id", "hypothesis"}: the file that LongMemEval's evaluate_qa.py reads. */
Status judge_input_hypotheses(const JudgeInput *input, Text *out);

#endif
