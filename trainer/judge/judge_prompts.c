#include "trainer/judge/judge_prompts.h"

#include "io/file.h"
#include "io/prompt_files.h"

#include <stdlib.h>
#include <string.h>

const char *const judge_task_names[JUDGE_TASKS] = {"knowledge_edit", "longmemeval"};

enum { PROMPT_SCORE, PROMPT_ANSWER, PROMPT_TEMPORAL, PROMPT_UPDATE, PROMPT_PREFERENCE, PROMPT_ABSTENTION };

static const struct {
    const char *file, *text;
    JudgeTask task;
} prompt_table[JUDGE_PROMPTS] = {
    {"judge_knowledge_edit.txt", prompt_judge_knowledge_edit, JUDGE_KNOWLEDGE_EDIT},
    {"judge_longmemeval.txt", prompt_judge_longmemeval, JUDGE_LONGMEMEVAL},
    {"judge_longmemeval_temporal.txt", prompt_judge_longmemeval_temporal, JUDGE_LONGMEMEVAL},
    {"judge_longmemeval_update.txt", prompt_judge_longmemeval_update, JUDGE_LONGMEMEVAL},
    {"judge_longmemeval_preference.txt", prompt_judge_longmemeval_preference, JUDGE_LONGMEMEVAL},
    {"judge_longmemeval_abstention.txt", prompt_judge_longmemeval_abstention, JUDGE_LONGMEMEVAL},
};

static const struct {
    const char *type;
    int prompt;
} question_types[] = {{"single-session-user", PROMPT_ANSWER}, {"single-session-assistant", PROMPT_ANSWER},
                      {"multi-session", PROMPT_ANSWER},       {"temporal-reasoning", PROMPT_TEMPORAL},
                      {"knowledge-update", PROMPT_UPDATE},    {"single-session-preference", PROMPT_PREFERENCE}};
enum { QUESTION_TYPES = sizeof question_types / sizeof *question_types };

enum { FIELD_QUESTION, FIELD_ANSWER, FIELD_HYPOTHESIS };
static const char *const fields[] = {"question", "answer", "hypothesis", NULL};

Status judge_task_by_name(const char *name, JudgeTask *out) {
    for (int task = 0; task < JUDGE_TASKS; ++task)
        if (!strcmp(judge_task_names[task], name)) return *out = (JudgeTask)task, STATUS_OK;
    INVALID("task \"%s\" is not knowledge_edit or longmemeval", name);
}

static Status load_file(const char *directory, const char *name, TextTemplate *out) {
    char *path;
    Text text = {0};
    TRY(path_join(directory, name, &path));
    Status status = prompt_file_read(path, &text);
    if (!status) status = text_template_parse(path, text.data, fields, out);
    text_free(&text);
    free(path);
    return status;
}

Status judge_prompts_load(const char *directory, JudgeTask task, JudgePrompts *out) {
    *out = (JudgePrompts){.templates = {{.parts = NULL}}};
    Status status = STATUS_OK;
    for (int i = 0; i < JUDGE_PROMPTS && !status; ++i) {
        if (prompt_table[i].task != task) continue;
        if (directory)
            status = load_file(directory, prompt_table[i].file, &out->templates[i]);
        else
            status = text_template_parse(prompt_table[i].file, prompt_table[i].text, fields, &out->templates[i]);
    }
    if (status) judge_prompts_free(out);
    return status;
}

void judge_prompts_free(JudgePrompts *prompts) {
    for (int i = 0; i < JUDGE_PROMPTS; ++i) text_template_free(&prompts->templates[i]);
}

bool judge_is_abstention(const char *question_id) {
    size_t length = strlen(question_id);
    return length >= 4 && !strcmp(question_id + length - 4, "_abs");
}

static Status check_type(const char *type) {
    for (int i = 0; i < QUESTION_TYPES; ++i)
        if (!strcmp(question_types[i].type, type)) return STATUS_OK;
    INVALID("\"question_type\" is \"%.60s\"; types: single-session-user, single-session-assistant, multi-session, "
            "temporal-reasoning, knowledge-update, single-session-preference",
            type);
}

/* A string, or a number: some of LongMemEval's answers are. */
static Status read_answer(const JsonValue *record, Text *out) {
    const JsonValue *answer = json_value_get(record, "answer");
    size_t length;
    const char *text = json_value_string(answer, &length);
    if (text) return text_append(out, text, length);
    if (!answer) INVALID("\"answer\" is missing");
    if (!json_value_is_number(answer)) INVALID("\"answer\" must be a string or a number, found %s", json_value_type_name(answer));
    return json_value_write(answer, 0, out);
}

static Status read_question(JudgeTask task, const JsonValue *record, const char *hypothesis, JudgeQuestion *out) {
    TRY(json_value_get_string(record, "question_id", &out->id, NULL));
    TRY(json_value_get_string(record, "question", &out->question, &out->question_length));
    out->type = "";
    if (task == JUDGE_LONGMEMEVAL || json_value_get(record, "question_type"))
        TRY(json_value_get_string(record, "question_type", &out->type, NULL));
    if (task == JUDGE_LONGMEMEVAL) TRY(check_type(out->type));
    out->hypothesis = hypothesis;
    out->hypothesis_length = hypothesis ? strlen(hypothesis) : 0;
    if (!hypothesis) TRY(json_value_get_string(record, "hypothesis", &out->hypothesis, &out->hypothesis_length));
    TRY(text_append(&out->answer, "", 0));
    return read_answer(record, &out->answer);
}

Status judge_question_read(JudgeTask task, const JsonValue *record, const char *hypothesis, JudgeQuestion *out) {
    *out = (JudgeQuestion){.id = NULL};
    Status status = read_question(task, record, hypothesis, out);
    if (status) judge_question_free(out);
    return status;
}

void judge_question_free(JudgeQuestion *question) { text_free(&question->answer); }

static int prompt_of(JudgeTask task, const JudgeQuestion *question) {
    if (task == JUDGE_KNOWLEDGE_EDIT) return PROMPT_SCORE;
    if (judge_is_abstention(question->id)) return PROMPT_ABSTENTION;
    int i = 0;
    while (strcmp(question_types[i].type, question->type)) ++i; /* judge_question_read checked it */
    return question_types[i].prompt;
}

Status judge_prompt_render(const JudgePrompts *prompts, JudgeTask task, const JudgeQuestion *question, Text *out) {
    const TextTemplate *t = &prompts->templates[prompt_of(task, question)];
    for (size_t i = 0; i < t->count; ++i) {
        const TemplatePart *part = &t->parts[i];
        switch (part->field) {
        case FIELD_QUESTION: TRY(text_append(out, question->question, question->question_length)); break;
        case FIELD_ANSWER: TRY(text_append(out, question->answer.data, question->answer.length)); break;
        case FIELD_HYPOTHESIS: TRY(text_append(out, question->hypothesis, question->hypothesis_length)); break;
        default: TRY(text_append(out, t->literals.data + part->offset, part->length));
        }
    }
    return STATUS_OK;
}
