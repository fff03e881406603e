#include "trainer/judge/judge_verdict.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Letters of other scripts count too: bytes of theirs are above 127. */
static bool is_letter(char c) { return isalpha((unsigned char)c) || (unsigned char)c > 127; }

/* The number at p, the first of its digits; *end behind all that belongs to it. 0 if it is no whole number from 1 to 5. */
static int number_at(const char *reply, const char *p, const char **end) {
    size_t digits = strspn(p, "0123456789");
    const char *after = p + digits;
    bool alone =
        p == reply || (!is_letter(p[-1]) && p[-1] != '-' && !(p[-1] == '.' && p - reply > 1 && isdigit((unsigned char)p[-2])));
    if (*after == '.' && isdigit((unsigned char)after[1])) {
        *end = after + 1 + strspn(after + 1, "0123456789");
        return 0;
    }
    *end = after;
    return alone && digits == 1 && *p >= '1' && *p <= '5' && !isalpha((unsigned char)*after) ? *p - '0' : 0;
}

static int first_score(const char *reply) {
    int score = 0;
    for (const char *p = reply + strcspn(reply, "0123456789"); *p && !score; p += strcspn(p, "0123456789"))
        score = number_at(reply, p, &p);
    return score;
}

static bool contains(const char *reply, const char *word, bool whole) {
    size_t length = strlen(word);
    for (const char *p = reply; *p; ++p) {
        size_t same = 0;
        while (same < length && tolower((unsigned char)p[same]) == word[same]) ++same;
        if (same == length && (!whole || ((p == reply || !is_letter(p[-1])) && !is_letter(p[length])))) return true;
    }
    return false;
}

JudgeVerdict judge_verdict(JudgeTask task, const char *reply) {
    JudgeVerdict verdict = {.parsed = false};
    if (task == JUDGE_KNOWLEDGE_EDIT) {
        verdict.score = first_score(reply);
        verdict.parsed = verdict.score > 0;
    } else {
        verdict.correct = contains(reply, "yes", false);
        verdict.parsed = verdict.correct || contains(reply, "no", true);
    }
    return verdict;
}

static Status find_type(JudgeTally *tally, const char *name, struct JudgeTypeTally **out) {
    for (int i = 0; i < tally->type_count; ++i)
        if (!strcmp(tally->types[i].name, name)) return *out = &tally->types[i], STATUS_OK;
    if (tally->type_count == JUDGE_TYPES) INVALID("more than %d question types", JUDGE_TYPES);
    *out = &tally->types[tally->type_count];
    if (strlen(name) >= sizeof(*out)->name) INVALID("the question type \"%.20s...\" is too long", name);
    **out = (struct JudgeTypeTally){.judgements = 0};
    strcpy((*out)->name, name);
    ++tally->type_count;
    return STATUS_OK;
}

Status judge_tally_add(JudgeTally *tally, const JudgeQuestion *question, JudgeVerdict verdict) {
    struct JudgeTypeTally *type;
    if (*question->type) {
        TRY(find_type(tally, question->type, &type));
        ++type->judgements;
        type->parsed += verdict.parsed;
        type->correct += verdict.correct;
        type->score_sum += verdict.score;
    }
    ++tally->judgements;
    tally->parsed += verdict.parsed;
    tally->correct += verdict.correct;
    tally->score_sum += verdict.score;
    if (verdict.parsed) ++tally->scores[verdict.score];
    if (judge_is_abstention(question->id)) {
        ++tally->abstentions;
        tally->abstentions_correct += verdict.correct;
    }
    return STATUS_OK;
}

static double ratio(int64_t part, int64_t whole) { return whole ? (double)part / (double)whole : NAN; }

static Status add_accuracy(JsonValue *parent, const char *key, int64_t correct, int64_t count) {
    JsonValue *object = json_value_new_object();
    TRY(json_value_set(parent, key, object));
    TRY(json_value_set_number(object, "accuracy", ratio(correct, count)));
    return json_value_set_integer(object, "judgements", count);
}

static Status fill_answers(JsonValue *object, const JudgeTally *tally) {
    TRY(json_value_set_integer(object, "correct", tally->correct));
    TRY(json_value_set_number(object, "accuracy", ratio(tally->correct, tally->judgements)));
    TRY(add_accuracy(object, "abstention", tally->abstentions_correct, tally->abstentions));
    JsonValue *types = json_value_new_object();
    TRY(json_value_set(object, "types", types));
    for (int i = 0; i < tally->type_count; ++i)
        TRY(add_accuracy(types, tally->types[i].name, tally->types[i].correct, tally->types[i].judgements));
    return STATUS_OK;
}

static Status fill_scores(JsonValue *object, const JudgeTally *tally) {
    TRY(json_value_set_number(object, "mean_score", ratio(tally->score_sum, tally->parsed)));
    JsonValue *scores = json_value_new_object(), *types;
    TRY(json_value_set(object, "scores", scores));
    for (int s = 1; s <= 5; ++s) {
        const char name[2] = {(char)('0' + s), 0};
        TRY(json_value_set_integer(scores, name, tally->scores[s]));
    }
    TRY(json_value_set(object, "types", types = json_value_new_object()));
    for (int i = 0; i < tally->type_count; ++i) {
        JsonValue *type = json_value_new_object();
        TRY(json_value_set(types, tally->types[i].name, type));
        TRY(json_value_set_number(type, "mean_score", ratio(tally->types[i].score_sum, tally->types[i].parsed)));
        TRY(json_value_set_integer(type, "judgements", tally->types[i].judgements));
    }
    return STATUS_OK;
}

static Status fill(JsonValue *object, const JudgeTally *tally, JudgeTask task) {
    TRY(json_value_set_string(object, "task", judge_task_names[task]));
    TRY(json_value_set_integer(object, "judgements", tally->judgements));
    TRY(json_value_set_integer(object, "unparseable", tally->judgements - tally->parsed));
    return task == JUDGE_LONGMEMEVAL ? fill_answers(object, tally) : fill_scores(object, tally);
}

Status judge_tally_json(const JudgeTally *tally, JudgeTask task, JsonValue **out) {
    TRY_ALLOC(*out = json_value_new_object());
    Status status = fill(*out, tally, task);
    if (!status) return STATUS_OK;
    json_value_free(*out);
    *out = NULL;
    return status;
}
