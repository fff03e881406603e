/* What a judge model is asked: the prompts of configs/prompts/judge_*.txt, which are built in, or files of the same names.
 *
 * Tasks: knowledge_edit, a score from 1 to 5 (Lightmem's WikiUpdate); longmemeval, yes or no with a prompt per question type as
 * LongMemEval's evaluate_qa.py has it (Wu et al. 2024): one for single-session-user, single-session-assistant and
 * multi-session, one each for temporal-reasoning, knowledge-update and single-session-preference, and one for questions that
 * cannot be answered, whose id ends in "_abs". The criteria are theirs, the wording is ours. */
#ifndef TRAINER_JUDGE_PROMPTS_H
#define TRAINER_JUDGE_PROMPTS_H

#include "io/json_value.h"
#include "io/text_template.h"

typedef enum JudgeTask { JUDGE_KNOWLEDGE_EDIT, JUDGE_LONGMEMEVAL, JUDGE_TASKS } JudgeTask;
/* "knowledge_edit", "longmemeval". STATUS_INVALID names them. */
Status judge_task_by_name(const char *name, JudgeTask *out);
extern const char *const judge_task_names[JUDGE_TASKS];

enum { JUDGE_PROMPTS = 6 };
typedef struct JudgePrompts {
    TextTemplate templates[JUDGE_PROMPTS];
} JudgePrompts;

/* directory NULL: those built in; else the files of the task are read from there. STATUS_INVALID names the file. */
Status judge_prompts_load(const char *directory, JudgeTask task, JudgePrompts *out);
void judge_prompts_free(JudgePrompts *prompts);

/* One thing to judge; strings are borrowed from the record, except answer. */
typedef struct JudgeQuestion {
    const char *id, *type; /* type "": not given, knowledge_edit only */
    const char *question, *hypothesis;
    size_t question_length, hypothesis_length;
    Text answer; /* a number is written as JSON writes it */
} JudgeQuestion;
/* {"question_id", "question", "answer", "question_type"}, and "hypothesis" unless one is given. STATUS_INVALID names the member;
 * for an unknown question type also the known ones. */
Status judge_question_read(JudgeTask task, const JsonValue *record, const char *hypothesis, JudgeQuestion *out);
void judge_question_free(JudgeQuestion *question);
bool judge_is_abstention(const char *question_id);

/* Appends the prompt for the question. */
Status judge_prompt_render(const JudgePrompts *prompts, JudgeTask task, const JudgeQuestion *question, Text *out);

#endif
