/* The prompt of session memory: what inference sends is, byte for byte and id for id, what training samples begin with; and
 * the template built into the program is the file in configs/prompts. */
#include "io/dataset.h"
#include "io/json_lines.h"
#include "io/memory_prompt.h"
#include "io/prompt_files.h"
#include "tests/unit/small_tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static DataFormat *create(const World *world, const char *name, const char *template_text, int64_t max_length) {
    DataFormat *format;
    DataFormatSettings settings = {.format = name,
                                   .prompt_template = template_text,
                                   .completion_template = "",
                                   .chat_template = "",
                                   .system = "",
                                   .max_length = max_length,
                                   .truncate = true,
                                   .tokenizer = world->tokenizer};
    assert_null(data_format_create(&settings, &format));
    return format;
}

static JsonValue *parse(const char *text) {
    JsonValue *value;
    assert_null(json_value_parse(text, strlen(text), &value));
    return value;
}

static size_t prompt_length(const SampleList *sample) {
    size_t length = 0;
    while (length < sample->input_ids.count && sample->labels.ids[length] == LABEL_IGNORED) ++length;
    return length;
}

/* Of one record: training's prompt against inference's. */
static void compare(const World *world, const DataFormat *format, const JsonValue *record) {
    SampleList sample = {.count = 0};
    MemoryPrompt prompt;
    assert_null(data_format_convert(format, world->scratch, record, &sample));
    assert_int_equal(sample.count, 1);
    assert_null(memory_prompt_encode(format, world->scratch, record, &prompt));
    assert_false(prompt.shortened);
    size_t length = prompt_length(&sample);
    assert_int_equal(prompt.ids.count, length);
    assert_memory_equal(prompt.ids.ids, sample.input_ids.ids, length * sizeof *prompt.ids.ids);
    Text trained = {0};
    assert_null(tokenizer_decode(world->tokenizer, sample.input_ids.ids, length, false, &trained));
    assert_string_equal(prompt.text.data, trained.data);
    assert_string_equal(prompt.text.data + prompt.text.length - 22, "<|im_start|>assistant\n");
    text_free(&trained);
    memory_prompt_free(&prompt);
    sample_list_free(&sample);
}

static void inference_sends_what_training_saw(void **state) {
    const World *world = *state;
    static const char *const templates[] = {"", "{recent_turns}|{active_document}", "\n{previous_memory}{{}}\n\n"};
    for (size_t t = 0; t < 3; ++t) {
        DataFormat *format = create(world, "memory", templates[t], 100000);
        JsonLines *reader;
        assert_null(json_lines_open(TEST_DATA "/formats/memory.jsonl", &reader));
        size_t records = 0;
        for (JsonValue *record;; ++records) {
            assert_null(json_lines_next_object(reader, &record));
            if (!record) break;
            compare(world, format, record);
            json_value_free(record);
        }
        assert_true(records >= 2);
        json_lines_close(reader);
        data_format_destroy(format);
    }
}

static void template_is_the_shipped_file(void **state) {
    const World *world = *state;
    Text file = {0};
    assert_null(prompt_file_read(TEST_DATA "/../../configs/prompts/memory_summary.txt", &file));
    assert_string_equal(file.data, prompt_memory_summary);
    assert_int_equal(file.data[0], '\n');
    assert_int_equal(file.data[file.length - 1], '\n');
    DataFormat *format = create(world, "memory", "", 1000);
    assert_string_equal(data_format_prompt_template(format), file.data);
    data_format_destroy(format);
    assert_null(prompt_file_read(TEST_DATA "/../../configs/prompts/memory_summary_system.txt", &file));
    assert_string_equal(file.data, prompt_memory_summary_system);
    assert_int_equal(file.data[file.length - 1], '.');
    text_free(&file);
}

static const char long_record[] =
    "{\"previous_memory\": {\"narrative\": \"earlier\"}, \"recent_turns\": [{\"role\": \"user\", \"text\": \"oldest words of "
    "all\"}, {\"role\": \"assistant\", \"text\": \"middle\"}, {\"role\": \"user\", \"text\": \"newest words\"}], "
    "\"active_document\": {\"file_name\": \"paper.txt\", \"doc_summary\": \"a long summary of a paper\"}}";

/* At every length: at most max_length ids, all of the template, and what is given up goes in the documented order. */
static void long_prompts_keep_the_template(void **state) {
    const World *world = *state;
    JsonValue *record = parse(long_record);
    bool oldest_gone = false, document_cut = false, refused = false;
    for (int64_t length = 400; length > 4 && !refused; --length) {
        DataFormat *format = create(world, "memory", "", length);
        MemoryPrompt prompt;
        Status status = memory_prompt_encode(format, world->scratch, record, &prompt);
        if (status) {
            refused = true;
            assert_int_equal(status_exit_code(status), STATUS_INVALID);
            assert_non_null(strstr(status_message(status), "template alone"));
            status_free(status);
        } else {
            assert_true((int64_t)prompt.ids.count <= length);
            Text text = {0};
            assert_null(tokenizer_decode(world->tokenizer, prompt.ids.ids, prompt.ids.count, false, &text));
            assert_non_null(strstr(text.data, "Create a concise memory summary for future dialogue turns.\n[PREVIOUS MEMORY]\n"));
            assert_non_null(strstr(text.data, "\n[RECENT TURNS]\n"));
            assert_non_null(
                strstr(text.data, "\nReturn a concise summary in plain English.\n<|im_end|>\n<|im_start|>assistant\n"));
            oldest_gone = !strstr(text.data, "oldest words of all");
            document_cut = !strstr(text.data, "summary of a paper\"\n}");
            if (document_cut) assert_true(oldest_gone && !strstr(text.data, "middle"));
            if (!strstr(text.data, "\"earlier\"")) assert_true(document_cut);
            assert_int_equal(prompt.shortened, oldest_gone);
            text_free(&text);
        }
        if (!status) memory_prompt_free(&prompt);
        data_format_destroy(format);
    }
    assert_true(oldest_gone && document_cut && refused);
    json_value_free(record);
}

static void bad_records_are_refused(void **state) {
    const World *world = *state;
    static const char *const rows[][2] = {
        {"{}", "\"recent_turns\" is missing"},
        {"{\"recent_turns\": [{\"role\": \"system\", \"text\": \"\"}]}", "recent_turns[0]: \"role\" must be user or assistant"},
        {"{\"recent_turns\": [], \"previous_memory\": []}", "\"previous_memory\" must be an object"},
    };
    DataFormat *format = create(world, "memory", "", 1000), *other = create(world, "samsum", "", 1000);
    MemoryPrompt prompt;
    for (size_t i = 0; i < 3; ++i) {
        JsonValue *record = parse(rows[i][0]);
        Status status = memory_prompt_encode(format, world->scratch, record, &prompt);
        assert_int_equal(status_exit_code(status), STATUS_INVALID);
        assert_non_null(strstr(status_message(status), rows[i][1]));
        status_free(status);
        json_value_free(record);
    }
    JsonValue *record = parse(long_record);
    Status status = memory_prompt_encode(other, world->scratch, record, &prompt);
    assert_int_equal(status_exit_code(status), STATUS_INVALID);
    status_free(status);
    json_value_free(record);
    data_format_destroy(format);
    data_format_destroy(other);
}

static void prompt_files_must_be_text(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t length;
        const char *word;
    } rows[] = {{"a\xc3\n", 3, "invalid UTF-8 at byte 1"}, {"a\0b", 3, "holds a NUL"}};
    char path[] = "/tmp/prompt-XXXXXX";
    int descriptor = mkstemp(path);
    assert_true(descriptor >= 0);
    Text text = {0};
    for (size_t i = 0; i < 2; ++i) {
        assert_int_equal(pwrite(descriptor, rows[i].bytes, rows[i].length, 0), rows[i].length);
        Status status = prompt_file_read(path, &text);
        assert_int_equal(status_exit_code(status), STATUS_INVALID);
        assert_non_null(strstr(status_message(status), rows[i].word));
        assert_non_null(strstr(status_message(status), path));
        status_free(status);
    }
    assert_int_equal(ftruncate(descriptor, 0), 0);
    assert_null(prompt_file_read(path, &text));
    assert_string_equal(text.data, "");
    close(descriptor);
    unlink(path);
    Status status = prompt_file_read(path, &text);
    assert_int_equal(status_exit_code(status), STATUS_INVALID);
    status_free(status);
    text_free(&text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(inference_sends_what_training_saw), cmocka_unit_test(template_is_the_shipped_file),
        cmocka_unit_test(long_prompts_keep_the_template),    cmocka_unit_test(bad_records_are_refused),
        cmocka_unit_test(prompt_files_must_be_text),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
