/* The chat template against what Transformers renders, and what it refuses. */
#include "io/chat_template.h"
#include "io/file.h"
#include "io/json_lines.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void succeed(Status status) {
    if (status) fail_msg("%s [%s]", status_message(status), status_positions(status));
}

static void expect_error(Status status, const char *part) {
    assert_non_null(status);
    assert_int_equal(status_exit_code(status), STATUS_INVALID);
    if (!strstr(status_message(status), part)) fail_msg("\"%s\" does not say \"%s\"", status_message(status), part);
    status_free(status);
}

static int check_golden(const char *path) {
    JsonLines *reader;
    JsonValue *object;
    int lines = 0;
    succeed(json_lines_open(path, &reader));
    for (;; ++lines) {
        succeed(json_lines_next_object(reader, &object));
        if (!object) break;
        Text text = {0};
        bool prompt = json_value_boolean(json_value_get(object, "add_generation_prompt"));
        succeed(chat_template_render(json_value_get(object, "messages"), prompt, &text, NULL, NULL));
        assert_string_equal(text.data, json_value_string(json_value_get(object, "text"), NULL));
        text_free(&text);
        json_value_free(object);
    }
    json_lines_close(reader);
    return lines;
}

static void test_golden(void **state) {
    (void)state;
    assert_int_equal(check_golden(TEST_DATA "/tokenizer-small/golden_chat.jsonl"), 14);
}

static void test_golden_shared(void **state) {
    (void)state;
    static const char path[] = SHARED_DATA "/tokenizer-qwen2.5/chat_cases.jsonl";
    if (!file_exists(path)) {
        print_message("skipped: %s is absent\n", path);
        skip();
    }
    assert_int_equal(check_golden(path), 10);
}

static JsonValue *parse(const char *text) {
    JsonValue *value;
    succeed(json_value_parse(text, strlen(text), &value));
    return value;
}

static void test_spans(void **state) {
    (void)state;
    JsonValue *messages = parse("[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"one\\n\"},"
                                "{\"role\":\"user\",\"content\":\"b\"},{\"role\":\"assistant\",\"content\":\"\"}]");
    Text text = {0};
    ChatSpan *spans;
    size_t count;
    succeed(text_append_string(&text, "before|"));
    succeed(chat_template_render(messages, true, &text, &spans, &count));
    assert_int_equal(count, 2);
    assert_int_equal(strncmp(text.data, "before|<|im_start|>system\n", 26), 0);
    assert_int_equal(spans[0].end - spans[0].start, strlen("one\n<|im_end|>"));
    assert_memory_equal(text.data + spans[0].start, "one\n<|im_end|>\n", 15);
    assert_int_equal(spans[1].end - spans[1].start, strlen("<|im_end|>"));
    assert_memory_equal(text.data + spans[1].start - 22, "<|im_start|>assistant\n<|im_end|>\n", 33);
    free(spans);
    text_free(&text);
    json_value_free(messages);
}

static void test_refused_messages(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"[]", "messages is empty"},
        {"{}", "messages must be an array"},
        {"[3]", "messages[0]: expected an object"},
        {"[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"tool\",\"content\":\"b\"}]", "messages[1]: role \"tool\""},
        {"[{\"role\":\"human\",\"content\":\"a\"}]", "role \"human\""},
        {"[{\"role\":\"user\"}]", "\"content\""},
        {"[{\"role\":\"user\",\"content\":null}]", "\"content\""},
        {"[{\"content\":\"a\"}]", "\"role\""},
        {"[{\"role\":\"assistant\",\"content\":\"a\",\"tool_calls\":[{\"name\":\"f\"}]}]", "tool_calls"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
        JsonValue *messages = parse(cases[i][0]);
        Text text = {0};
        ChatSpan *spans;
        size_t count;
        succeed(text_append_string(&text, "kept"));
        expect_error(chat_template_render(messages, false, &text, &spans, &count), cases[i][1]);
        assert_string_equal(text.data, "kept");
        assert_null(spans);
        text_free(&text);
        json_value_free(messages);
    }
}

static void test_check(void **state) {
    (void)state;
    Text text = {0};
    succeed(chat_template_check(NULL, "m"));
    succeed(chat_template_check(chat_template_qwen2_5, "m"));
    succeed(text_append(&text, chat_template_qwen2_5, strlen(chat_template_qwen2_5) - 1));
    succeed(chat_template_check(text.data, "m")); /* the line end at the end does not show */
    text.data[200] ^= 1;
    expect_error(chat_template_check(text.data, "my/model"), "my/model");
    expect_error(chat_template_check("{{ '<|start_header_id|>' }}", "m"), "Llama 3");
    expect_error(chat_template_check("{{ '<|im_start|>' }}", "m"), "ChatML other than Qwen2.5's");
    expect_error(chat_template_check("", "m"), "not supported");
    text_free(&text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),           cmocka_unit_test(test_golden_shared), cmocka_unit_test(test_spans),
        cmocka_unit_test(test_refused_messages), cmocka_unit_test(test_check),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
