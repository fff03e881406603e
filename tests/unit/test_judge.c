/* The judge without a model: which prompt a question gets, how replies are read, what they add up to. */
#include "io/json_lines.h"
#include "io/prompt_files.h"
#include "trainer/judge/judge_verdict.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static JsonValue *parse(const char *text) {
    JsonValue *value;
    Status status = json_value_parse(text, strlen(text), &value);
    if (status) fail_msg("%s: %s", text, status_message(status));
    return value;
}

static Text render(const JudgePrompts *prompts, JudgeTask task, const char *record) {
    JsonValue *value = parse(record);
    JudgeQuestion question;
    Text text = {0};
    Status status = judge_question_read(task, value, NULL, &question);
    if (status) fail_msg("%s", status_message(status));
    assert_null(judge_prompt_render(prompts, task, &question, &text));
    judge_question_free(&question);
    json_value_free(value);
    return text;
}

/* Literal text of a prompt file that no other has. */
static void every_type_gets_its_prompt(void **state) {
    (void)state;
    static const struct {
        const char *id, *type, *mark;
    } rows[] = {
        {"1", "single-session-user", "It is not right if only a part of what the correct answer asks for is there.\n"},
        {"1", "single-session-assistant", "It is not right if only a part of what the correct answer asks for is there.\n"},
        {"1", "multi-session", "It is not right if only a part of what the correct answer asks for is there.\n"},
        {"1", "temporal-reasoning", "off by one is still right"},
        {"1", "knowledge-update", "newest answer"},
        {"1", "single-session-preference", "remembers what the user told"},
        {"1_abs", "multi-session", "Did the assistant notice"},
        {"1_abs", "single-session-preference", "Did the assistant notice"},
        {"1_absent", "multi-session", "It is not right if only a part of what the correct answer asks for is there.\n"},
    };
    JudgePrompts prompts;
    assert_null(judge_prompts_load(NULL, JUDGE_LONGMEMEVAL, &prompts));
    for (size_t i = 0; i < sizeof rows / sizeof *rows; ++i) {
        char record[300];
        snprintf(
            record, sizeof record,
            "{\"question_id\": \"%s\", \"question_type\": \"%s\", \"question\": \"Q{}?\", \"answer\": 3, \"hypothesis\": \"H\"}",
            rows[i].id, rows[i].type);
        Text text = render(&prompts, JUDGE_LONGMEMEVAL, record);
        if (!strstr(text.data, rows[i].mark)) fail_msg("row %zu: %s", i, text.data);
        assert_non_null(strstr(text.data, ": Q{}?\n"));
        assert_non_null(strstr(text.data, ": 3\n"));
        assert_non_null(strstr(text.data, ": H\n"));
        assert_non_null(strstr(text.data, "Write only yes or no."));
        text_free(&text);
    }
    judge_prompts_free(&prompts);
    assert_null(judge_prompts_load(NULL, JUDGE_KNOWLEDGE_EDIT, &prompts));
    Text text = render(&prompts, JUDGE_KNOWLEDGE_EDIT,
                       "{\"question_id\": \"1\", \"question\": \"Q\", \"answer\": 0.5, \"hypothesis\": \"H\"}");
    assert_non_null(strstr(text.data, "Question: Q\nCorrect answer: 0.5\nReply to grade: H\n"));
    text_free(&text);
    judge_prompts_free(&prompts);
}

static void shipped_files_are_the_built_in_prompts(void **state) {
    (void)state;
    for (int task = 0; task < JUDGE_TASKS; ++task) {
        JudgePrompts built_in, read;
        assert_null(judge_prompts_load(NULL, (JudgeTask)task, &built_in));
        Status status = judge_prompts_load(TEST_DATA "/../../configs/prompts", (JudgeTask)task, &read);
        if (status) fail_msg("%s", status_message(status));
        for (int i = 0; i < JUDGE_PROMPTS; ++i) {
            assert_int_equal(built_in.templates[i].count, read.templates[i].count);
            if (read.templates[i].count)
                assert_string_equal(built_in.templates[i].literals.data, read.templates[i].literals.data);
        }
        judge_prompts_free(&built_in);
        judge_prompts_free(&read);
    }
    JudgePrompts none;
    Status status = judge_prompts_load("/nowhere", JUDGE_LONGMEMEVAL, &none);
    assert_int_equal(status_exit_code(status), STATUS_INVALID);
    assert_non_null(strstr(status_message(status), "/nowhere/judge_longmemeval.txt"));
    status_free(status);
}

static void scores_are_read(void **state) {
    (void)state;
    static const struct {
        const char *reply;
        int score;
    } rows[] = {{"4", 4},
                {" 5\n", 5},
                {"Score: 3/5", 3},
                {"I give it a 2.", 2},
                {"**1**", 1},
                {"10", 0},
                {"0", 0},
                {"6", 0},
                {"4.5", 0},
                {"-3", 0},
                {"five", 0},
                {"", 0},
                {"v5", 0},
                {"10, no: 4", 4},
                {"3rd", 0},
                {"In 2023 it: 5", 5},
                {"2.5 or 3", 3},
                {"1.2.3", 0},
                {"score=4;", 4},
                {"\xe5\x88\x86"
                 "5",
                 0},
                {"5.", 5},
                {"7 7 7", 0},
                {"4,5", 4},
                {"(2)", 2}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; ++i) {
        JudgeVerdict verdict = judge_verdict(JUDGE_KNOWLEDGE_EDIT, rows[i].reply);
        if (verdict.score != rows[i].score) fail_msg("\"%s\" is %d, expected %d", rows[i].reply, verdict.score, rows[i].score);
        assert_int_equal(verdict.parsed, rows[i].score > 0);
        assert_false(verdict.correct);
    }
}

static void answers_are_read(void **state) {
    (void)state;
    static const struct {
        const char *reply;
        bool correct, parsed;
    } rows[] = {{"yes", true, true},       {"Yes.", true, true},    {"no", false, true},      {"NO!", false, true},
                {"", false, false},        {"maybe", false, false}, {"not", false, false},    {"eyes", true, true},
                {"No, yes", true, true},   {"YES", true, true},     {"I know", false, false}, {"y es", false, false},
                {"it is: no", false, true}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; ++i) {
        JudgeVerdict verdict = judge_verdict(JUDGE_LONGMEMEVAL, rows[i].reply);
        if (verdict.correct != rows[i].correct || verdict.parsed != rows[i].parsed) fail_msg("\"%s\"", rows[i].reply);
    }
}

static void add(JudgeTally *tally, JudgeTask task, const char *id, const char *type, const char *reply) {
    JudgeQuestion question = {.id = id, .type = type};
    assert_null(judge_tally_add(tally, &question, judge_verdict(task, reply)));
}

static void assert_tally(const JudgeTally *tally, JudgeTask task, const char *expected) {
    JsonValue *object;
    Text text = {0};
    assert_null(judge_tally_json(tally, task, &object));
    assert_null(json_value_write(object, 0, &text));
    assert_string_equal(text.data, expected);
    text_free(&text);
    json_value_free(object);
}

static void tallies_count_everything(void **state) {
    (void)state;
    JudgeTally tally = {.judgements = 0};
    assert_tally(
        &tally, JUDGE_KNOWLEDGE_EDIT,
        "{\"task\": \"knowledge_edit\", \"judgements\": 0, \"unparseable\": 0, \"mean_score\": null, \"scores\": {\"1\": 0, "
        "\"2\": 0, \"3\": 0, \"4\": 0, \"5\": 0}, \"types\": {}}");
    add(&tally, JUDGE_KNOWLEDGE_EDIT, "a", "", "5");
    add(&tally, JUDGE_KNOWLEDGE_EDIT, "b", "x", "2");
    add(&tally, JUDGE_KNOWLEDGE_EDIT, "c", "x", "none");
    add(&tally, JUDGE_KNOWLEDGE_EDIT, "d", "", "2");
    assert_tally(
        &tally, JUDGE_KNOWLEDGE_EDIT,
        "{\"task\": \"knowledge_edit\", \"judgements\": 4, \"unparseable\": 1, \"mean_score\": 3.0, \"scores\": {\"1\": 0, "
        "\"2\": 2, \"3\": 0, \"4\": 0, \"5\": 1}, \"types\": {\"x\": {\"mean_score\": 2.0, \"judgements\": 2}}}");
    tally = (JudgeTally){.judgements = 0};
    add(&tally, JUDGE_LONGMEMEVAL, "a", "multi-session", "yes");
    add(&tally, JUDGE_LONGMEMEVAL, "b_abs", "multi-session", "no");
    add(&tally, JUDGE_LONGMEMEVAL, "c", "temporal-reasoning", "?");
    add(&tally, JUDGE_LONGMEMEVAL, "d", "multi-session", "Yes");
    assert_tally(&tally, JUDGE_LONGMEMEVAL,
                 "{\"task\": \"longmemeval\", \"judgements\": 4, \"unparseable\": 1, \"correct\": 2, \"accuracy\": 0.5, "
                 "\"abstention\": {\"accuracy\": 0.0, \"judgements\": 1}, \"types\": {\"multi-session\": {\"accuracy\": "
                 "0.6666666666666666, \"judgements\": 3}, \"temporal-reasoning\": {\"accuracy\": 0.0, \"judgements\": 1}}}");
}

static void broken_questions_are_refused(void **state) {
    (void)state;
#define REST "\"question\": \"q\", \"answer\": \"a\", \"hypothesis\": \"h\""
    static const struct {
        JudgeTask task;
        const char *record, *word;
    } rows[] = {
        {JUDGE_KNOWLEDGE_EDIT, "{" REST "}", "\"question_id\" is missing"},
        {JUDGE_KNOWLEDGE_EDIT, "{\"question_id\": 3, " REST "}", "\"question_id\" must be a string"},
        {JUDGE_LONGMEMEVAL, "{\"question_id\": \"1\", " REST "}", "\"question_type\" is missing"},
        {JUDGE_LONGMEMEVAL, "{\"question_id\": \"1\", \"question_type\": \"multi\", " REST "}", "types: single-session-user"},
        {JUDGE_KNOWLEDGE_EDIT, "{\"question_id\": \"1\", \"question\": \"q\", \"answer\": []}", "\"hypothesis\" is missing"},
        {JUDGE_KNOWLEDGE_EDIT, "{\"question_id\": \"1\", \"question\": \"q\", \"hypothesis\": \"\"}", "\"answer\" is missing"},
        {JUDGE_KNOWLEDGE_EDIT, "{\"question_id\": \"1\", \"question\": \"q\", \"hypothesis\": \"\", \"answer\": true}",
         "\"answer\" must be a string or a number, found boolean"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; ++i) {
        JsonValue *record = parse(rows[i].record);
        JudgeQuestion question;
        Status status = judge_question_read(rows[i].task, record, NULL, &question);
        assert_int_equal(status_exit_code(status), STATUS_INVALID);
        if (!strstr(status_message(status), rows[i].word)) fail_msg("\"%s\" lacks \"%s\"", status_message(status), rows[i].word);
        status_free(status);
        json_value_free(record);
    }
    JudgeTask task;
    Status status = judge_task_by_name("longmem", &task);
    assert_int_equal(status_exit_code(status), STATUS_INVALID);
    status_free(status);
    assert_null(judge_task_by_name("longmemeval", &task));
    assert_int_equal(task, JUDGE_LONGMEMEVAL);
}

/* All of LongMemEval's questions at hand have a prompt. */
static void real_questions_are_read(void **state) {
    (void)state;
    JsonLines *reader;
    if (access(SHARED_DATA "/longmemeval/questions_only.jsonl", R_OK)) {
        print_message("no LongMemEval questions here\n");
        skip();
    }
    JudgePrompts prompts;
    assert_null(judge_prompts_load(NULL, JUDGE_LONGMEMEVAL, &prompts));
    assert_null(json_lines_open(SHARED_DATA "/longmemeval/questions_only.jsonl", &reader));
    size_t count = 0;
    for (JsonValue *record;; ++count) {
        assert_null(json_lines_next_object(reader, &record));
        if (!record) break;
        JudgeQuestion question;
        Text text = {0};
        Status status = judge_question_read(JUDGE_LONGMEMEVAL, record, "I do not know.", &question);
        if (status) fail_msg("%s", status_message(status));
        assert_null(judge_prompt_render(&prompts, JUDGE_LONGMEMEVAL, &question, &text));
        assert_non_null(strstr(text.data, question.question));
        text_free(&text);
        judge_question_free(&question);
        json_value_free(record);
    }
    assert_int_equal(count, 150);
    json_lines_close(reader);
    judge_prompts_free(&prompts);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_gets_its_prompt),
        cmocka_unit_test(shipped_files_are_the_built_in_prompts),
        cmocka_unit_test(scores_are_read),
        cmocka_unit_test(answers_are_read),
        cmocka_unit_test(tallies_count_everything),
        cmocka_unit_test(broken_questions_are_refused),
        cmocka_unit_test(real_questions_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
