/* Generated memory training data: reproducible from the seed, consistent with the structured update, readable as format memory;
 * and slot recall. */
#include "io/data_format.h"
#include "io/json_lines.h"
#include "io/words.h"
#include "trainer/memory/dialogue.h"
#include "trainer/memory/structure_update.h"
#include "trainer/memory/synthesis.h"
#include "trainer/metrics/slot_recall.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct World {
    MemoryRules rules;
    TargetPhrases phrases;
} World;

static int set_up(void **state) {
    World *world = calloc(1, sizeof *world);
    assert_non_null(world);
    assert_null(memory_rules_load(NULL, &world->rules));
    assert_null(target_phrases_load(&world->phrases));
    *state = world;
    return 0;
}

static int tear_down(void **state) {
    World *world = *state;
    memory_rules_free(&world->rules);
    target_phrases_free(&world->phrases);
    free(world);
    return 0;
}

static JsonValue *parse(const char *text) {
    JsonValue *value;
    Status status = json_value_parse(text, strlen(text), &value);
    if (status) fail_msg("%s: %s", text, status_message(status));
    return value;
}

/* All lines that a file gives, of its first most_records records. */
static Text synthesize(const World *world, const char *path, const char *format, uint64_t seed, int64_t samples,
                       int64_t most_records, SynthesisCounts *counts) {
    Synthesis synthesis = {&world->rules, &world->phrases, format, seed, samples, {.samples = 0}};
    Text out = {0};
    JsonLines *reader;
    assert_null(text_append(&out, "", 0));
    assert_null(json_lines_open(path, &reader));
    for (JsonValue *record; most_records > 0; --most_records) {
        assert_null(json_lines_next_object(reader, &record));
        if (!record) break;
        Status status = synthesis_add(&synthesis, record, json_lines_number(reader), &out);
        if (status) fail_msg("%s: %s", path, status_message(status));
        json_value_free(record);
    }
    json_lines_close(reader);
    if (counts) *counts = synthesis.counts;
    return out;
}

static const char *const sources[][2] = {{TEST_DATA "/formats/dialogsum.jsonl", "dialogsum"},
                                         {TEST_DATA "/formats/samsum.jsonl", "samsum"},
                                         {TEST_DATA "/formats/qmsum.jsonl", "qmsum"},
                                         {TEST_DATA "/formats/chat.jsonl", "chat"},
                                         {TEST_DATA "/memory/dialogues.jsonl", "samsum"},
                                         {SHARED_DATA "/dialogsum/dev.jsonl", "dialogsum"},
                                         {SHARED_DATA "/qmsum/val.jsonl", "qmsum"}};
enum { SOURCES = sizeof sources / sizeof *sources, MOST_RECORDS = 60 };

static bool have(const char *path) {
    if (access(path, R_OK) == 0) return true;
    print_message("%s is not here: left out\n", path);
    return false;
}

static void same_seed_gives_the_same_bytes(void **state) {
    size_t differ = 0;
    for (int i = 0; i < SOURCES; ++i) {
        if (!have(sources[i][0])) continue;
        SynthesisCounts counts, few;
        Text a = synthesize(*state, sources[i][0], sources[i][1], 7, 0, MOST_RECORDS, &counts);
        Text b = synthesize(*state, sources[i][0], sources[i][1], 7, 0, MOST_RECORDS, NULL);
        Text c = synthesize(*state, sources[i][0], sources[i][1], 8, 0, MOST_RECORDS, NULL);
        assert_string_equal(a.data, b.data);
        differ += strcmp(a.data, c.data) != 0;
        assert_int_equal(counts.sessions, counts.samples + counts.left_out);
        if (counts.samples > 1) { /* fewer samples are the first of all */
            Text d = synthesize(*state, sources[i][0], sources[i][1], 7, counts.samples - 1, MOST_RECORDS, &few);
            assert_int_equal(few.samples, counts.samples - 1);
            assert_memory_equal(a.data, d.data, d.length);
            text_free(&d);
        }
        text_free(&a);
        text_free(&b);
        text_free(&c);
    }
    assert_true(differ > 0);
}

static void assert_same_json(const JsonValue *a, const JsonValue *b) {
    Text left = {0}, right = {0};
    assert_null(json_value_write(a, 2, &left));
    assert_null(json_value_write(b, 2, &right));
    assert_string_equal(left.data, right.data);
    text_free(&left);
    text_free(&right);
}

/* The updated memory of a line. */
static SessionMemory after(const World *world, const JsonValue *line) {
    SessionMemory memory;
    Status status = session_memory_read(json_value_get(line, "previous_memory"), &memory);
    if (!status)
        status = structure_update(&world->rules, json_value_get(line, "recent_turns"), json_value_get(line, "active_document"),
                                  &memory);
    if (status) fail_msg("%s", status_message(status));
    return memory;
}

static void check_slots(const World *world, const JsonValue *line, const SessionMemory *memory) {
    const JsonValue *slots = json_value_get(line, "slots");
    size_t length, stated = 0;
    const char *summary = json_value_string(json_value_get(line, "summary"), &length);
    Text focus = {0};
    assert_null(words_squeeze(memory->current_focus.data, memory->current_focus.length, TARGET_ITEM_WORDS, &focus));
    const JsonValue *said = json_value_at(json_value_get(slots, "current_focus"), 0);
    if (said) assert_string_equal(json_value_string(said, NULL), focus.data);
    text_free(&focus);
    for (int slot = 0; slot < SLOTS; ++slot) {
        const JsonValue *items = json_value_get(slots, target_slot_keys[slot]);
        assert_true(json_value_is_array(items) && json_value_size(items) <= TARGET_ITEMS);
        stated += slot != SLOT_FOCUS && json_value_size(items) > 0;
    }
    assert_true(stated > 0);
    size_t words = 1;
    for (const char *p = summary; *p; ++p) words += *p == ' ';
    assert_true(words <= TARGET_WORDS);
    SlotRecall recall = {.count = 0}; /* the target itself states all */
    assert_null(slot_recall_add(&recall, slots, summary, length, world->rules.stop_words.data, 1.0));
    assert_true(recall.total > 0);
    assert_int_equal(recall.found, recall.total);
}

static void lines_follow_from_the_update(void **state) {
    const World *world = *state;
    int64_t lines = 0, chained = 0, documents = 0;
    for (int i = 0; i < SOURCES; ++i) {
        if (!have(sources[i][0])) continue;
        Text all = synthesize(world, sources[i][0], sources[i][1], 42, 0, MOST_RECORDS, NULL);
        JsonValue *expected = NULL; /* structure of the memory that the next session should find */
        for (char *line = strtok(all.data, "\n"); line; line = strtok(NULL, "\n"), ++lines) {
            JsonValue *record = parse(line), *memory_json;
            SessionMemory memory = after(world, record);
            check_slots(world, record, &memory);
            const JsonValue *previous = json_value_get(record, "previous_memory");
            if (expected && json_value_size(json_value_get(record, "recent_turns")) &&
                *json_value_string(json_value_get(previous, "narrative"), NULL)) {
                const JsonValue *left = json_value_get(expected, "structured"), *right = json_value_get(previous, "structured");
                Text a = {0}, b = {0};
                assert_null(json_value_write(left, 0, &a));
                assert_null(json_value_write(right, 0, &b));
                chained += !strcmp(a.data, b.data); /* unless a session between them was left out */
                text_free(&a);
                text_free(&b);
            }
            documents += json_value_is_object(json_value_get(record, "active_document"));
            json_value_free(expected);
            assert_null(session_memory_to_json(&memory, &memory_json));
            expected = memory_json;
            session_memory_free(&memory);
            json_value_free(record);
        }
        json_value_free(expected);
        text_free(&all);
    }
    assert_true(lines >= 8);
    assert_true(chained > 0);
    print_message("%lld lines, %lld after the line before, %lld with a document\n", (long long)lines, (long long)chained,
                  (long long)documents);
}

static void lines_are_of_format_memory(void **state) {
    const World *world = *state;
    Tokenizer *tokenizer;
    TokenizerScratch *scratch;
    DataFormat *format;
    assert_null(tokenizer_load(TEST_DATA "/tokenizer-small", &tokenizer));
    assert_null(tokenizer_scratch_new(tokenizer, &scratch));
    DataFormatSettings settings = {.format = "memory",
                                   .prompt_template = "",
                                   .completion_template = "",
                                   .chat_template = "",
                                   .system = "",
                                   .max_length = 3072,
                                   .truncate = true,
                                   .tokenizer = tokenizer};
    assert_null(data_format_create(&settings, &format));
    Text all = synthesize(world, sources[4][0], sources[4][1], 42, 0, MOST_RECORDS, NULL);
    SampleList samples = {.count = 0};
    size_t lines = 0;
    for (char *line = strtok(all.data, "\n"); line; line = strtok(NULL, "\n"), ++lines) {
        JsonValue *record = parse(line);
        assert_null(data_format_convert(format, scratch, record, &samples));
        json_value_free(record);
    }
    assert_true(lines > 0);
    assert_int_equal(samples.count, lines);
    sample_list_free(&samples);
    text_free(&all);
    data_format_destroy(format);
    tokenizer_scratch_free(scratch);
    tokenizer_free(tokenizer);
}

static Dialogue read_dialogue(const char *format, const char *record) {
    RandomStream random = random_stream(1, 1);
    JsonValue *value = parse(record);
    Dialogue dialogue;
    Status status = dialogue_read(format, value, 5, &random, &dialogue);
    if (status) fail_msg("%s", status_message(status));
    json_value_free(value);
    return dialogue;
}

static void assert_turns(const char *format, const char *record, const char *expected) {
    Dialogue dialogue = read_dialogue(format, record);
    Text found = {0};
    assert_null(text_append_format(&found, "%s|%s|", dialogue.name.data, dialogue.summary.data));
    for (size_t i = 0; i < dialogue.count; ++i)
        assert_null(text_append_format(&found, "%c:%s|", dialogue.turns[i].user ? 'u' : 'a', dialogue.turns[i].text));
    assert_string_equal(found.data, expected);
    text_free(&found);
    dialogue_free(&dialogue);
}

static void dialogues_are_read(void **state) {
    (void)state;
    assert_turns(
        "chat",
        "{\"messages\": [{\"role\": \"system\", \"content\": \"s\"}, {\"role\": \"user\", \"content\": \"a\\nb\"}, {\"role\": "
        "\"user\", \"content\": \"c\"}, {\"role\": \"assistant\", \"content\": \"d {x}\"}, {\"role\": \"user\", \"content\": "
        "\" \"}]}",
        "chat-5||u:a b c|a:d|");
    Dialogue dialogue = read_dialogue("samsum", "{\"id\": \"7\", \"dialogue\": \"A: hi\\r\\nB: yo: {gap}ok\\r\\nmore\\nA: x\", "
                                                "\"summary\": \" S. \"}");
    assert_int_equal(dialogue.count, 3);
    assert_string_equal(dialogue.name.data, "7");
    assert_string_equal(dialogue.summary.data, "S.");
    assert_string_equal(dialogue.turns[1].text, "yo: ok more");
    assert_true(dialogue.turns[0].user == dialogue.turns[2].user && dialogue.turns[0].user != dialogue.turns[1].user);
    dialogue_free(&dialogue);
    dialogue =
        read_dialogue("qmsum", "{\"meeting_id\": \"m\", \"general_query_list\": [{\"query\": \"q\", \"answer\": \"sum\"}], "
                               "\"meeting_transcripts\": [{\"speaker\": \"P\", \"content\": \"1\"}, {\"speaker\": \"Q\", "
                               "\"content\": \"2\"}, {\"speaker\": \"R\", \"content\": \"3\"}]}");
    assert_string_equal(dialogue.summary.data, "sum");
    size_t users = 0, named = 0;
    for (size_t i = 0; i < dialogue.count; ++i) {
        users += dialogue.turns[i].user;
        named += !dialogue.turns[i].user && strstr(dialogue.turns[i].text, ": ") != NULL;
    }
    assert_int_equal(users, 1);
    assert_int_equal(named, dialogue.count - 1);
    dialogue_free(&dialogue);
    assert_turns("samsum", "{\"dialogue\": \"\"}", "samsum-5||");
}

static void broken_dialogues_are_refused(void **state) {
    (void)state;
    static const char *const rows[][3] = {
        {"samsum", "{}", "\"dialogue\" is missing"},
        {"samsum", "{\"dialogue\": 3}", "\"dialogue\" must be a string"},
        {"qmsum", "{\"meeting_transcripts\": [{\"speaker\": \"a\"}]}", "meeting_transcripts[0]: \"content\" is missing"},
        {"chat", "{\"messages\": {}}", "\"messages\" must be an array"},
        {"cnn", "{}", "format \"cnn\" is not dialogsum, samsum, qmsum or chat"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; ++i) {
        RandomStream random = random_stream(1, 1);
        JsonValue *value = parse(rows[i][1]);
        Dialogue dialogue;
        Status status = dialogue_read(rows[i][0], value, 1, &random, &dialogue);
        assert_int_equal(status_exit_code(status), STATUS_INVALID);
        if (!strstr(status_message(status), rows[i][2])) fail_msg("\"%s\" lacks \"%s\"", status_message(status), rows[i][2]);
        status_free(status);
        json_value_free(value);
    }
}

static void recall_counts_stated_items(void **state) {
    const World *world = *state;
    const char *stop = world->rules.stop_words.data;
    SlotRecall sum = {.count = 0};
    JsonValue *slots = parse("{\"goal\": \"book a hotel in Paris\", \"decisions\": [\"take the night train\", \"pay cash\"], "
                             "\"open_problems\": [], \"current_focus\": \"...\"}");
    const char *prediction = "The user books a HOTEL: in paris, by train.";
    assert_null(slot_recall_add(&sum, slots, prediction, strlen(prediction), stop, 0.5));
    JsonValue *found,
        *expected = parse("{\"recall\": 0.3333333333333333, \"items\": 3, \"slots\": {\"goal\": {\"recall\": 1.0, "
                          "\"items\": 1}, \"decisions\": {\"recall\": 0.0, \"items\": 2}, \"open_problems\": "
                          "{\"recall\": null, \"items\": 0}, \"current_focus\": {\"recall\": null, \"items\": 0}}}");
    assert_null(slot_recall_json(&sum, &found));
    assert_same_json(found, expected);
    json_value_free(found);
    json_value_free(expected);
    assert_null(slot_recall_add(&sum, slots, prediction, strlen(prediction), stop, 0.3)); /* train: 1 of 3 words */
    assert_int_equal(sum.found, 3);
    assert_int_equal(sum.total, 6);
    assert_null(slot_recall_add(&sum, slots, "", 0, stop, 0.01));
    assert_int_equal(sum.found, 3);
    json_value_free(slots);
    static const char *const broken[][2] = {{"[]", "\"slots\" must be an object"}, {"{\"a\": [1]}", "\"a\" must be a string"}};
    for (int i = 0; i < 2; ++i) {
        slots = parse(broken[i][0]);
        Status status = slot_recall_add(&sum, slots, "x", 1, stop, 0.5);
        assert_int_equal(status_exit_code(status), STATUS_INVALID);
        assert_non_null(strstr(status_message(status), broken[i][1]));
        status_free(status);
        json_value_free(slots);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_seed_gives_the_same_bytes), cmocka_unit_test(lines_follow_from_the_update),
        cmocka_unit_test(lines_are_of_format_memory),     cmocka_unit_test(dialogues_are_read),
        cmocka_unit_test(broken_dialogues_are_refused),   cmocka_unit_test(recall_counts_stated_items),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
