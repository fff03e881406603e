#include "trainer/memory/memory_rules.h"

#include "io/json_value.h"
#include "io/prompt_files.h"
#include "io/words.h"

#include <stddef.h>
#include <string.h>

typedef enum RuleKind { RULE_FRACTION, RULE_COUNT, RULE_PHRASES, RULE_WORDS } RuleKind;

static const struct Rule {
    const char *key;
    RuleKind kind;
    size_t offset;
} rule_table[] = {
    {"question_overlap", RULE_FRACTION, offsetof(MemoryRules, question_overlap)},
    {"problem_overlap", RULE_FRACTION, offsetof(MemoryRules, problem_overlap)},
    {"focus_words", RULE_COUNT, offsetof(MemoryRules, focus_words)},
    {"item_words", RULE_COUNT, offsetof(MemoryRules, item_words)},
    {"goal", RULE_PHRASES, offsetof(MemoryRules, goal)},
    {"user_facts", RULE_PHRASES, offsetof(MemoryRules, user_facts)},
    {"assistant_facts", RULE_PHRASES, offsetof(MemoryRules, assistant_facts)},
    {"decisions", RULE_PHRASES, offsetof(MemoryRules, decisions)},
    {"open_problems", RULE_PHRASES, offsetof(MemoryRules, open_problems)},
    {"solutions", RULE_PHRASES, offsetof(MemoryRules, solutions)},
    {"yes_no_answers", RULE_PHRASES, offsetof(MemoryRules, yes_no_answers)},
    {"abbreviations", RULE_PHRASES, offsetof(MemoryRules, abbreviations)},
    {"stop_words", RULE_WORDS, offsetof(MemoryRules, stop_words)},
};
enum { RULES = sizeof rule_table / sizeof *rule_table, MOST_WORDS = 1000 };

/* The folded form of one phrase, onto a list or into one form with all others. */
static Status add_phrase(const JsonValue *item, const struct Rule *rule, Text *folded, void *target) {
    size_t length;
    const char *text = json_value_string(item, &length);
    if (!text) INVALID("must hold strings, found %s", json_value_type_name(item));
    TRY(words_fold(text, length, folded));
    if (!folded->length) INVALID("\"%.*s\" has no word", (int)(length < 60 ? length : 60), text);
    if (rule->kind == RULE_PHRASES) return string_list_append(target, folded->data, folded->length);
    Text *words = target;
    return text_append_string(words, folded->data + (words->length > 0)); /* one space between two */
}

static Status read_phrases(const JsonValue *array, const struct Rule *rule, void *target) {
    if (!json_value_is_array(array)) INVALID("must be an array, found %s", json_value_type_name(array));
    Text folded = {0};
    Status status = rule->kind == RULE_WORDS ? text_append(target, "", 0) : STATUS_OK;
    for (size_t i = 0; i < json_value_size(array) && !status; ++i)
        status = add_phrase(json_value_at(array, i), rule, &folded, target);
    text_free(&folded);
    return status;
}

static Status read_rule(const JsonValue *value, const struct Rule *rule, MemoryRules *out) {
    void *target = (char *)out + rule->offset;
    if (!value) INVALID("is missing");
    if (rule->kind == RULE_FRACTION) {
        double x = json_value_number(value);
        if (!json_value_is_number(value) || !(x > 0 && x <= 1)) INVALID("must be a number above 0, at most 1");
        *(double *)target = x;
    } else if (rule->kind == RULE_COUNT) {
        int64_t n = json_value_integer(value);
        if (!json_value_is_integer(value) || n < 1 || n > MOST_WORDS) INVALID("must be a whole number from 1 to %d", MOST_WORDS);
        *(int64_t *)target = n;
    } else {
        return read_phrases(value, rule, target);
    }
    return STATUS_OK;
}

static bool is_rule(const char *key) {
    for (size_t i = 0; i < RULES; ++i)
        if (!strcmp(rule_table[i].key, key)) return true;
    return false;
}

static Status read_rules(const JsonValue *object, MemoryRules *out) {
    if (!json_value_is_object(object)) INVALID("expected an object, found %s", json_value_type_name(object));
    for (JsonMember m = {0}; json_value_next_member(object, &m);)
        if (!is_rule(m.key)) INVALID("unknown key \"%s\"", m.key);
    for (size_t i = 0; i < RULES; ++i)
        TRY(status_prefix(read_rule(json_value_get(object, rule_table[i].key), &rule_table[i], out), "\"%s\"",
                          rule_table[i].key));
    return STATUS_OK;
}

Status memory_rules_load(const char *path, MemoryRules *out) {
    *out = (MemoryRules){0};
    JsonValue *object;
    if (path)
        TRY(json_value_read_file(path, &object));
    else
        TRY(json_value_parse(prompt_memory_rules_json, strlen(prompt_memory_rules_json), &object));
    Status status = status_prefix(read_rules(object, out), "%s", path ? path : "memory_rules.json");
    json_value_free(object);
    if (status) memory_rules_free(out);
    return status;
}

void memory_rules_free(MemoryRules *rules) {
    for (size_t i = 0; i < RULES; ++i) {
        void *target = (char *)rules + rule_table[i].offset;
        if (rule_table[i].kind == RULE_PHRASES) string_list_free(target);
        if (rule_table[i].kind == RULE_WORDS) text_free(target);
    }
    *rules = (MemoryRules){0};
}

bool memory_phrase_inside(const StringList *phrases, const char *folded) {
    for (size_t i = 0; i < phrases->count; ++i)
        if (strstr(folded, phrases->items[i])) return true;
    return false;
}

bool memory_phrase_first(const StringList *phrases, const char *folded) {
    for (size_t i = 0; i < phrases->count; ++i)
        if (!strncmp(folded, phrases->items[i], strlen(phrases->items[i]))) return true;
    return false;
}
