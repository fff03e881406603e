/* Session memory: the structured update against hand-made sessions, its rules as properties over random sessions, the JSON
 * against the shipped schema, and what is refused. */
#include "io/file.h"
#include "io/json_value.h"
#include "io/prompt_files.h"
#include "io/random.h"
#include "io/words.h"
#include "trainer/memory/structure_update.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static JsonValue *parse(const char *text) {
    JsonValue *value;
    Status status = json_value_parse(text, strlen(text), &value);
    if (status) fail_msg("%s: %s", text, status_message(status));
    return value;
}

/* --- a validator for the keywords that the schema uses; another keyword fails the test --- */

static bool validate(const JsonValue *root, const JsonValue *schema, const JsonValue *value);

static bool has_type(const JsonValue *value, const char *type) { return !strcmp(json_value_type_name(value), type); }

static bool items_differ(const JsonValue *array) {
    for (size_t i = 0; i < json_value_size(array); ++i)
        for (size_t k = 0; k < i; ++k)
            if (!strcmp(json_value_string(json_value_at(array, i), NULL), json_value_string(json_value_at(array, k), NULL)))
                return false;
    return true;
}

static bool validate_keyword(const JsonValue *root, const JsonValue *schema, const char *key, const JsonValue *rule,
                             const JsonValue *value) {
    if (!strcmp(key, "$schema") || !strcmp(key, "$defs") || !strcmp(key, "title") || !strcmp(key, "description")) return true;
    if (!strcmp(key, "type")) return has_type(value, json_value_string(rule, NULL));
    if (!strcmp(key, "$ref")) {
        const char *reference = json_value_string(rule, NULL);
        assert_memory_equal(reference, "#/$defs/", 8);
        const JsonValue *target = json_value_get(json_value_get(root, "$defs"), reference + 8);
        assert_non_null(target);
        return validate(root, target, value);
    }
    if (!strcmp(key, "minLength")) return strlen(json_value_string(value, NULL)) >= (size_t)json_value_integer(rule);
    if (!strcmp(key, "maxItems")) return json_value_size(value) <= (size_t)json_value_integer(rule);
    if (!strcmp(key, "uniqueItems")) return items_differ(value);
    if (!strcmp(key, "required")) {
        for (size_t i = 0; i < json_value_size(rule); ++i)
            if (!json_value_get(value, json_value_string(json_value_at(rule, i), NULL))) return false;
        return true;
    }
    if (!strcmp(key, "properties")) {
        for (JsonMember m = {0}; json_value_next_member(rule, &m);) {
            const JsonValue *member = json_value_get(value, m.key);
            if (member && !validate(root, m.value, member)) return false;
        }
        return true;
    }
    if (!strcmp(key, "additionalProperties")) {
        assert_true(json_value_is_boolean(rule) && !json_value_boolean(rule));
        for (JsonMember m = {0}; json_value_next_member(value, &m);)
            if (!json_value_get(json_value_get(schema, "properties"), m.key)) return false;
        return true;
    }
    if (!strcmp(key, "items")) {
        for (size_t i = 0; i < json_value_size(value); ++i)
            if (!validate(root, rule, json_value_at(value, i))) return false;
        return true;
    }
    fail_msg("the schema uses \"%s\", which this test does not know", key);
    return false;
}

static bool validate(const JsonValue *root, const JsonValue *schema, const JsonValue *value) {
    if (json_value_get(schema, "type") && !has_type(value, json_value_string(json_value_get(schema, "type"), NULL))) return false;
    for (JsonMember m = {0}; json_value_next_member(schema, &m);)
        if (!validate_keyword(root, schema, m.key, m.value, value)) return false;
    return true;
}

static JsonValue *read_schema(void) {
    JsonValue *schema;
    Status status = json_value_read_file(TEST_DATA "/../../configs/prompts/session_memory.schema.json", &schema);
    if (status) fail_msg("%s", status_message(status));
    return schema;
}

static bool valid(const char *memory) {
    JsonValue *schema = read_schema(), *value = parse(memory);
    bool result = validate(schema, schema, value);
    json_value_free(schema);
    json_value_free(value);
    return result;
}

/* --- updates --- */

static int set_up(void **state) {
    MemoryRules *rules = calloc(1, sizeof *rules);
    assert_non_null(rules);
    Status status = memory_rules_load(NULL, rules);
    if (status) fail_msg("%s", status_message(status));
    *state = rules;
    return 0;
}

static int tear_down(void **state) {
    memory_rules_free(*state);
    free(*state);
    return 0;
}

/* The memory after an update, as JSON; the caller frees. */
static char *update(const MemoryRules *rules, const char *memory, const char *turns, const char *document) {
    JsonValue *old = parse(memory), *list = parse(turns), *file = document ? parse(document) : NULL;
    SessionMemory session;
    Status status = session_memory_read(old, &session);
    if (!status) status = structure_update(rules, list, file, &session);
    if (status) fail_msg("%s", status_message(status));
    Text out = {0};
    assert_null(session_memory_write(&session, &out));
    session_memory_free(&session);
    json_value_free(old);
    json_value_free(list);
    json_value_free(file);
    return out.data;
}

#define U(text) "{\"role\": \"user\", \"text\": \"" text "\"}"
#define A(text) "{\"role\": \"assistant\", \"text\": \"" text "\"}"

static void one_session_gives_these_bytes(void **state) {
    char *found = update(*state,
                         "{\"narrative\": \"n\", \"structured\": {\"goal\": \"old\", \"unresolved_questions\": [\"Which airline "
                         "is cheapest?\"]}}",
                         "[" U("I want to book a trip to Krak\xc3\xb3w. My budget is 900 \xe2\x82\xac. Is the hotel near the "
                               "river?") ", " A("Yes, five minutes. Note that breakfast costs extra. The cheapest airline is "
                                                "LOT.") ", " U("Let's go with that hotel, please.\\nThe booking page fails! When "
                                                               "does the train leave?") "]",
                         "{\"file_name\": \"hotels.pdf\", \"doc_summary\": \"Three hotels with prices. More.\"}");
    assert_string_equal(found, "{\n"
                               "  \"narrative\": \"n\",\n"
                               "  \"structured\": {\n"
                               "    \"goal\": \"I want to book a trip to Krak\xc3\xb3w.\",\n"
                               "    \"established_facts\": [\n"
                               "      \"hotels.pdf: Three hotels with prices.\",\n"
                               "      \"My budget is 900 \xe2\x82\xac.\",\n"
                               "      \"Note that breakfast costs extra.\"\n"
                               "    ],\n"
                               "    \"current_focus\": \"Let's go with that hotel, please. The booking page fails! When does "
                               "the train leave?\",\n"
                               "    \"unresolved_questions\": [\n"
                               "      \"When does the train leave?\"\n"
                               "    ],\n"
                               "    \"decisions\": [\n"
                               "      \"Let's go with that hotel, please.\"\n"
                               "    ],\n"
                               "    \"open_problems\": [\n"
                               "      \"The booking page fails!\"\n"
                               "    ]\n"
                               "  }\n"
                               "}\n");
    assert_true(valid(found));
    free(found);
}

static void assert_list(const MemoryRules *rules, const char *turns, const char *key, const char *expected) {
    char *found = update(rules, "{}", turns, NULL);
    JsonValue *memory = parse(found), *list = parse(expected);
    Text left = {0}, right = {0};
    assert_null(json_value_write(json_value_get(json_value_get(memory, "structured"), key), 0, &left));
    assert_null(json_value_write(list, 0, &right));
    if (strcmp(left.data, right.data)) fail_msg("%s: %s is %s, expected %s", turns, key, left.data, right.data);
    text_free(&left);
    text_free(&right);
    json_value_free(memory);
    json_value_free(list);
    free(found);
}

static void questions_leave_when_answered(void **state) {
    const char *key = "unresolved_questions";
    static const char *const rows[][2] = {
        {"[" U("What does the hotel cost?") "]", "[\"What does the hotel cost?\"]"},
        {"[" U("What does the hotel cost?") ", " A("The hotel asks 90 euro.") "]", "[]"},
        /* an answer about something else; a question back; an answer before the question; the user's own words */
        {"[" U("What does the hotel cost?") ", " A("Trains leave hourly.") "]", "[\"What does the hotel cost?\"]"},
        {"[" U("What does the hotel cost?") ", " A("Which hotel, and what cost?") "]", "[\"What does the hotel cost?\"]"},
        {"[" A("The hotel costs 90.") ", " U("What does the hotel cost?") "]", "[\"What does the hotel cost?\"]"},
        {"[" U("What does the hotel cost?") ", " U("The hotel must not cost much.") "]", "[\"What does the hotel cost?\"]"},
        /* a yes answers the last question of the turn before it, and only that */
        {"[" U("Who pays the taxi? Is breakfast included?") ", " A("Yes.") "]", "[\"Who pays the taxi?\"]"},
        {"[" U("Is breakfast included?") ", " A("Hm.") ", " A("Yes.") "]", "[\"Is breakfast included?\"]"},
        /* a later answer, not the next */
        {"[" U("What does the hotel cost?") ", " A("One moment.") ", " U("Fine.") ", " A("This hotel costs 90.") "]", "[]"},
        {"[" A("What is your name?") "]", "[]"},
        {"[" U("Really?! (Why not?)") ", " U("really") "]", "[\"Really?!\", \"(Why not?)\"]"},
        {"[" U("Where is it? where is it?") "]", "[\"Where is it?\"]"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; ++i) assert_list(*state, rows[i][0], key, rows[i][1]);
}

static void problems_leave_when_solved(void **state) {
    const char *key = "open_problems";
    assert_list(*state, "[" U("The printer is broken.") "]", key, "[\"The printer is broken.\"]");
    assert_list(*state, "[" U("The printer is broken.") ", " A("The printer is fixed.") "]", key, "[]");
    assert_list(*state, "[" U("The printer is broken.") ", " A("The lamp is fixed.") "]", key, "[\"The printer is broken.\"]");
    assert_list(*state, "[" U("The printer problem is solved.") "]", key, "[]");
    assert_list(*state, "[" U("Is the printer broken?") "]", key, "[]");
    assert_list(*state, "[" A("There is an error in line 3.") "]", key, "[\"There is an error in line 3.\"]");
}

static void goals_decisions_and_facts(void **state) {
    assert_list(*state, "[" U("I want to learn C. Fine.") ", " U("New goal, learn Rust.") "]", "goal",
                "\"New goal, learn Rust.\"");
    assert_list(*state, "[" A("I want to learn C.") "]", "goal", "\"\"");
    assert_list(*state, "[" U("I dont want to go.") "]", "goal", "\"\"");
    assert_list(*state, "[" U("Can you help me pack?") "]", "goal", "\"Can you help me pack?\"");
    assert_list(*state, "[" U("We've decided. Let\xe2\x80\x99s use HDF5.") "]", "decisions",
                "[\"We've decided.\", \"Let\xe2\x80\x99s use HDF5.\"]");
    assert_list(*state, "[" U("Have we decided?") "]", "decisions", "[]");
    assert_list(*state, "[" U("My name is Ann. my NAME is: ann") ", " A("My name is Bob.") "]", "established_facts",
                "[\"My name is Ann.\"]");
    assert_list(*state, "[" U("Hello") ", " A("Hi") ", " U("...") "]", "current_focus", "\"Hello\"");
}

/* Sessions of random turns from a few sentences that meet every rule. */
static void random_turns(RandomStream *random, Text *out) {
    static const char *const sentences[] = {"I want to move house.",
                                            "What does the flat cost?",
                                            "My flat is small!",
                                            "Yes.",
                                            "The flat costs 900 a month.",
                                            "Let's take the flat.",
                                            "The heating is broken.",
                                            "The heating was fixed.",
                                            "Where is Dr. No?",
                                            "\\n",
                                            "Note that rent is due on Monday.",
                                            "\xe3\x81\xa9\xe3\x81\x93\xef\xbc\x9f",
                                            "Help me pack 3.5 boxes?",
                                            "Um",
                                            "...",
                                            "We agreed to paint it \xe2\x80\x9cred\xe2\x80\x9d."};
    text_clear(out);
    assert_null(text_append_string(out, "["));
    uint64_t turns = random_below(random, 12);
    for (uint64_t t = 0; t < turns; ++t) {
        assert_null(text_append_format(out, "%s{\"role\": \"%s\", \"text\": \"", t ? ", " : "",
                                       random_below(random, 2) ? "user" : "assistant"));
        for (uint64_t n = random_below(random, 5); n > 0; --n) {
            if (random_below(random, 4) == 0)
                assert_null(text_append_format(out, "My number is %d. ", (int)random_below(random, 60)));
            assert_null(text_append_format(out, "%s ", sentences[random_below(random, sizeof sentences / sizeof *sentences)]));
        }
        assert_null(text_append_string(out, "\"}"));
    }
    assert_null(text_append_string(out, "]"));
}

static void every_update_keeps_the_rules(void **state) {
    RandomStream random = random_stream(3, 9);
    JsonValue *schema = read_schema();
    Text turns = {0}, again = {0};
    char *memory = NULL;
    size_t full = 0;
    for (int round = 0; round < 400; ++round) {
        random_turns(&random, &turns);
        const char *before = memory ? memory : "{}";
        char *after = update(*state, before, turns.data, NULL), *twice = update(*state, before, turns.data, NULL);
        assert_string_equal(after, twice); /* the same input, the same bytes */
        JsonValue *value = parse(after), *list = parse(turns.data);
        assert_true(validate(schema, schema, value));
        SessionMemory read;
        assert_null(session_memory_read(value, &read));
        text_clear(&again);
        assert_null(session_memory_write(&read, &again));
        assert_string_equal(again.data, after); /* reading and writing changes nothing */
        full += read.lists[MEMORY_FACTS].count == MEMORY_LIST_ITEMS;
        for (size_t i = 0; i < read.lists[MEMORY_QUESTIONS].count; ++i)
            assert_true(sentence_is_question(read.lists[MEMORY_QUESTIONS].items[i]));
        if (!json_value_size(list) && memory) assert_string_equal(after, memory);
        session_memory_free(&read);
        json_value_free(value);
        json_value_free(list);
        free(twice);
        free(memory);
        memory = after;
    }
    assert_true(full > 0); /* the limit was met */
    free(memory);
    text_free(&turns);
    text_free(&again);
    json_value_free(schema);
}

static void long_entries_are_cut(void **state) {
    Text turns = {0};
    assert_null(text_append_string(&turns, "[{\"role\": \"user\", \"text\": \"My "));
    for (int i = 0; i < 200; ++i) assert_null(text_append_format(&turns, "w%d ", i));
    assert_null(text_append_string(&turns, "\"}]"));
    char *found = update(*state, "{}", turns.data, NULL);
    assert_non_null(strstr(found, " w38\",\n    \"unresolved")); /* focus: 40 words with My */
    assert_non_null(strstr(found, " w58\"\n"));                  /* fact: 60 */
    free(found);
    text_free(&turns);
}

static void the_oldest_leave_first(void **state) {
    (void)state;
    StringList list = {0};
    char entry[20];
    size_t index;
    for (int i = 0; i < 40; ++i) {
        snprintf(entry, sizeof entry, "Entry %d.", i);
        assert_null(memory_list_add(&list, entry, &index));
        assert_int_equal(index, i < MEMORY_LIST_ITEMS ? i : MEMORY_LIST_ITEMS - 1);
    }
    assert_int_equal(list.count, MEMORY_LIST_ITEMS);
    assert_string_equal(list.items[0], "Entry 8.");
    assert_null(memory_list_add(&list, "entry 8", &index));
    assert_int_equal(index, 0);
    assert_int_equal(list.count, MEMORY_LIST_ITEMS);
    string_list_free(&list);
}

static void assert_memory_refused(const char *memory, const char *word) {
    JsonValue *value = parse(memory);
    SessionMemory read;
    Status status = session_memory_read(value, &read);
    assert_int_equal(status_exit_code(status), STATUS_INVALID);
    if (!strstr(status_message(status), word)) fail_msg("\"%s\" lacks \"%s\"", status_message(status), word);
    status_free(status);
    json_value_free(value);
}

static void broken_input_is_refused(void **state) {
    assert_memory_refused("[]", "expected an object, found array");
    assert_memory_refused("{\"narative\": \"\"}", "unknown member \"narative\"");
    assert_memory_refused("{\"structured\": []}", "\"structured\" must be an object");
    assert_memory_refused("{\"structured\": {\"goals\": \"\"}}", "unknown member \"goals\"");
    assert_memory_refused("{\"structured\": {\"goal\": 3}}", "\"goal\" must be a string");
    assert_memory_refused("{\"structured\": {\"decisions\": {}}}", "\"decisions\" must be an array");
    assert_memory_refused("{\"structured\": {\"decisions\": [\"a\", 1]}}", "\"decisions\"[1] must be a string");
    assert_memory_refused("{\"narrative\": \"a\\u0000b\"}", "NUL");
    static const char *const rows[][3] = {
        {"{}", NULL, "recent_turns: expected an array"},
        {"[3]", NULL, "recent_turns[0]: expected an object"},
        {"[" U("a") ", {\"role\": \"user\"}]", NULL, "recent_turns[1]: \"text\" is missing"},
        {"[{\"role\": \"tool\", \"text\": \"\"}]", NULL, "\"role\" must be user or assistant, found \"tool\""},
        {"[]", "[]", "active_document: expected an object"},
        {"[]", "{\"file_name\": \"a\"}", "active_document: \"doc_summary\" is missing"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; ++i) {
        JsonValue *empty = parse("{}"), *turns = parse(rows[i][0]), *document = rows[i][1] ? parse(rows[i][1]) : NULL;
        SessionMemory memory;
        assert_null(session_memory_read(empty, &memory));
        Status status = structure_update(*state, turns, document, &memory);
        assert_int_equal(status_exit_code(status), STATUS_INVALID);
        if (!strstr(status_message(status), rows[i][2])) fail_msg("\"%s\" lacks \"%s\"", status_message(status), rows[i][2]);
        status_free(status);
        session_memory_free(&memory);
        json_value_free(empty);
        json_value_free(turns);
        json_value_free(document);
    }
}

static void the_schema_refuses_what_it_should(void **state) {
    (void)state;
#define STRUCTURED(facts)                                                                                                        \
    "{\"narrative\": \"\", \"structured\": {\"goal\": \"\", \"established_facts\": " facts                                       \
    ", \"current_focus\": \"\", \"unresolved_questions\": [], \"decisions\": [], \"open_problems\": []}}"
    assert_true(valid(STRUCTURED("[\"a\"]")));
    assert_false(valid(STRUCTURED("[\"a\", \"a\"]")));
    assert_false(valid(STRUCTURED("[\"\"]")));
    assert_false(valid(STRUCTURED("[1]")));
    assert_false(valid(STRUCTURED("{}")));
    assert_false(valid("{\"narrative\": \"\"}"));
    assert_false(valid("{}"));
    assert_false(valid("[]"));
}

/* The shipped rules with one thing changed, from a file. */
static void assert_rules_refused(const char *from, const char *to, const char *word) {
    Text text = {0};
    const char *found = strstr(prompt_memory_rules_json, from);
    assert_non_null(found);
    assert_null(text_append(&text, prompt_memory_rules_json, (size_t)(found - prompt_memory_rules_json)));
    assert_null(text_append_string(&text, to));
    assert_null(text_append_string(&text, found + strlen(from)));
    char path[] = "/tmp/memory-rules-XXXXXX";
    int descriptor = mkstemp(path);
    assert_true(descriptor >= 0);
    close(descriptor);
    assert_null(file_write_atomic(path, text.data, text.length));
    MemoryRules rules;
    Status status = memory_rules_load(path, &rules);
    unlink(path);
    assert_int_equal(status_exit_code(status), STATUS_INVALID);
    assert_non_null(strstr(status_message(status), path));
    if (!strstr(status_message(status), word)) fail_msg("\"%s\" lacks \"%s\"", status_message(status), word);
    status_free(status);
    text_free(&text);
}

static void broken_rules_are_refused(void **state) {
    (void)state;
    assert_rules_refused("\"question_overlap\": 0.3", "\"question_overlap\": 0",
                         "\"question_overlap\": must be a number above 0");
    assert_rules_refused("\"focus_words\": 40", "\"focus_words\": 4.5", "\"focus_words\": must be a whole number from 1");
    assert_rules_refused("\"focus_words\"", "\"focus_word\"", "unknown key \"focus_word\"");
    assert_rules_refused("\"focus_words\": 40,", "", "\"focus_words\": is missing");
    assert_rules_refused("\"my goal is\"", "\"...\"", "\"goal\": \"...\" has no word");
    assert_rules_refused("\"my goal is\"", "7", "\"goal\": must hold strings");
    MemoryRules rules;
    Status status = memory_rules_load("/nowhere/rules.json", &rules);
    assert_int_equal(status_exit_code(status), STATUS_INVALID);
    status_free(status);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_session_gives_these_bytes), cmocka_unit_test(questions_leave_when_answered),
        cmocka_unit_test(problems_leave_when_solved),    cmocka_unit_test(goals_decisions_and_facts),
        cmocka_unit_test(every_update_keeps_the_rules),  cmocka_unit_test(long_entries_are_cut),
        cmocka_unit_test(the_oldest_leave_first),        cmocka_unit_test(broken_input_is_refused),
        cmocka_unit_test(broken_rules_are_refused),      cmocka_unit_test(the_schema_refuses_what_it_should),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
