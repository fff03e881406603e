/* JSON in and out: strict parsing with a column, and the text that Python's json.dumps(ensure_ascii=False) writes. */
#include "io/file.h"
#include "io/json_value.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void assert_ok(Status status) {
    if (status) fail_msg("%s", status_message(status));
}

static void assert_invalid(Status status, const char *word) {
    assert_int_equal(status_exit_code(status), STATUS_INVALID);
    if (!strstr(status_message(status), word)) fail_msg("\"%s\" lacks \"%s\"", status_message(status), word);
    status_free(status);
}

static JsonValue *parse(const char *text) {
    JsonValue *value = NULL;
    assert_ok(json_value_parse(text, strlen(text), &value));
    return value;
}

static void assert_written(const JsonValue *value, int indent, const char *expected) {
    Text text = {0};
    assert_ok(json_value_write(value, indent, &text));
    assert_string_equal(text.data, expected);
    text_free(&text);
}

static void test_bad_input(void **state) {
    (void)state;
    static const struct {
        const char *text;
        size_t length; /* 0: strlen */
        const char *word;
    } rows[] = {
        {"", 0, "column 0: "},
        {"{\"a\": 1", 0, "column 7: "},
        {"{\"a\": 1} x", 0, "column 10: "},
        {"{} {}", 0, "column 4: "},
        {"{\"a\": 1, \"a\": 2}", 0, "duplicate"},
        {"{\"a\" 1}", 0, "column 6: "},
        {"[1, 2,]", 0, "column 7: "},
        {"{'a': 1}", 0, "column 2: "},
        {"\"\xff\"", 0, "UTF-8"},
        {"\"\xc3\"", 0, "UTF-8"},
        {"\"\xed\xa0\x80\"", 0, "UTF-8"},
        {"\"\xf4\x90\x80\x80\"", 0, "UTF-8"},
        {"\"\xc0\xaf\"", 0, "UTF-8"},
        {"\"\\ud800\"", 0, "column"},
        {"\"a\nb\"", 0, "column"},
        {"\"\\x41\"", 0, "column"},
        {"nul", 0, "column"},
        {"NaN", 0, "column"},
        {"01", 0, "column"},
        {"1e999", 0, "column"},
        {"99999999999999999999", 0, "column"},
        {"{}\0", 3, "column 3: "},
        {"\0", 1, "column"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; ++i) {
        JsonValue *value = (JsonValue *)state;
        size_t length = rows[i].length ? rows[i].length : strlen(rows[i].text);
        assert_invalid(json_value_parse(rows[i].text, length, &value), rows[i].word);
        assert_null(value);
    }
}

static void test_deep_nesting_is_refused(void **state) {
    (void)state;
    enum { DEPTH = 1000000 };
    char *text = malloc(DEPTH);
    assert_non_null(text);
    memset(text, '[', DEPTH);
    JsonValue *value;
    assert_invalid(json_value_parse(text, DEPTH, &value), "depth");
    free(text);
}

static void test_types(void **state) {
    (void)state;
    JsonValue *v = parse(" [ {\"k\": null}, [], \"s\", 1, 1.5, true, false, null ] ");
    static const char *names[] = {"object", "array", "string", "integer", "number", "boolean", "boolean", "null"};
    assert_true(json_value_is_array(v));
    assert_int_equal(json_value_size(v), 8);
    for (size_t i = 0; i < 8; ++i) assert_string_equal(json_value_type_name(json_value_at(v, i)), names[i]);
    assert_null(json_value_at(v, 8));
    assert_true(json_value_is_object(json_value_at(v, 0)));
    assert_int_equal(json_value_size(json_value_at(v, 0)), 1);
    assert_true(json_value_is_null(json_value_get(json_value_at(v, 0), "k")));
    assert_null(json_value_get(json_value_at(v, 0), "absent"));
    assert_null(json_value_get(v, "k"));
    assert_int_equal(json_value_size(json_value_at(v, 1)), 0);
    assert_true(json_value_is_string(json_value_at(v, 2)));
    assert_int_equal(json_value_size(json_value_at(v, 2)), 0);
    assert_true(json_value_is_integer(json_value_at(v, 3)));
    assert_true(json_value_is_number(json_value_at(v, 3)));
    assert_true(json_value_is_number(json_value_at(v, 4)));
    assert_false(json_value_is_integer(json_value_at(v, 4)));
    assert_true(json_value_is_boolean(json_value_at(v, 6)));
    assert_true(json_value_boolean(json_value_at(v, 5)));
    assert_false(json_value_boolean(json_value_at(v, 6)));
    assert_true(json_value_number(json_value_at(v, 3)) == 1.0);
    assert_true(json_value_number(json_value_at(v, 2)) == 0.0);
    assert_null(json_value_string(json_value_at(v, 3), NULL));
    assert_string_equal(json_value_type_name(NULL), "nothing");
    json_value_free(v);
    json_value_free(NULL);
}

static void test_strings_carry_their_length(void **state) {
    (void)state;
    JsonValue *v = parse("\"a\\u0000b\\ud83d\\ude00\"");
    size_t length = 0;
    const char *string = json_value_string(v, &length);
    assert_int_equal(length, 7);
    assert_memory_equal(string, "a\0b\xf0\x9f\x98\x80", 7);
    assert_written(v, 0, "\"a\\u0000b\xf0\x9f\x98\x80\"");
    json_value_free(v);
}

static void test_members_in_file_order(void **state) {
    (void)state;
    JsonValue *v = parse("{\"z\": 1, \"a\": 2, \"m\": 3}");
    static const char *keys[] = {"z", "a", "m"};
    int count = 0;
    for (JsonMember member = {0}; json_value_next_member(v, &member); ++count) {
        JsonValue *value;
        assert_string_equal(member.key, keys[count]);
        assert_int_equal(json_value_integer(member.value), count + 1);
        assert_string_equal(json_value_key_at(v, (size_t)count, &value), keys[count]);
        assert_ptr_equal(value, member.value);
    }
    assert_int_equal(count, 3);
    JsonValue *value = v;
    assert_null(json_value_key_at(v, 3, &value));
    assert_null(value);
    json_value_free(v);
    JsonMember member = {0};
    v = parse("[]");
    assert_false(json_value_next_member(v, &member));
    json_value_free(v);
}

static void test_typed_members(void **state) {
    (void)state;
    JsonValue *v = parse("{\"s\": \"x\", \"i\": -9223372036854775808, \"n\": 2.5, \"a\": [1]}"), *array;
    const char *string;
    size_t length;
    int64_t integer;
    double number;
    assert_ok(json_value_get_string(v, "s", &string, &length));
    assert_string_equal(string, "x");
    assert_int_equal(length, 1);
    assert_ok(json_value_get_integer(v, "i", &integer));
    assert_true(integer == INT64_MIN);
    assert_ok(json_value_get_number(v, "n", &number));
    assert_true(number == 2.5);
    assert_ok(json_value_get_number(v, "i", &number));
    assert_true(number == -0x1p63);
    assert_ok(json_value_get_array(v, "a", &array));
    assert_int_equal(json_value_size(array), 1);
    assert_invalid(json_value_get_string(v, "i", &string, NULL), "\"i\" must be a string, found integer");
    assert_invalid(json_value_get_integer(v, "n", &integer), "\"n\" must be an integer, found number");
    assert_invalid(json_value_get_number(v, "s", &number), "\"s\" must be a number, found string");
    assert_invalid(json_value_get_array(v, "absent", &array), "\"absent\" is missing");
    assert_invalid(json_value_get_array(array, "k", &array), "expected an object with \"k\", found array");
    json_value_free(v);
}

static void test_building(void **state) {
    (void)state;
    JsonValue *v = json_value_new_object(), *array = json_value_new_array();
    assert_ok(json_value_set(v, "text", json_value_new_string("\xc3\xa9\"\\\n\x01\x7f", 7)));
    assert_ok(json_value_set(v, "n", json_value_new_integer(INT64_MAX)));
    assert_ok(json_value_append(array, json_value_new_number(1)));
    assert_ok(json_value_append(array, json_value_new_number(NAN)));
    assert_ok(json_value_append(array, json_value_new_number(-INFINITY)));
    assert_ok(json_value_append(array, json_value_new_boolean(true)));
    assert_ok(json_value_set(v, "a", array));
    assert_ok(json_value_set(v, "o", json_value_new_object()));
    assert_ok(json_value_set(v, "e", json_value_new_array()));
    assert_written(v, 0,
                   "{\"text\": \"\xc3\xa9\\\"\\\\\\n\\u0001\x7f\", \"n\": 9223372036854775807, \"a\": [1.0, null, null, true], "
                   "\"o\": {}, \"e\": []}");
    assert_null(json_value_new_string("\xff", 1));
    Status status = json_value_set(v, "bad", json_value_new_string("\xff", 1));
    assert_int_equal(status_exit_code(status), STATUS_FAILED);
    assert_non_null(strstr(status_message(status), "\"bad\""));
    status_free(status);
    json_value_free(v);
}

static void test_pretty(void **state) {
    (void)state;
    JsonValue *v = parse("{\"a\": [1, {\"b\": \"\\t\"}], \"c\": {}, \"d\": []}");
    assert_written(v, 2, "{\n  \"a\": [\n    1,\n    {\n      \"b\": \"\\t\"\n    }\n  ],\n  \"c\": {},\n  \"d\": []\n}");
    json_value_free(v);
}

/* Expected: Python's repr. */
static void test_reals(void **state) {
    (void)state;
    static const struct {
        double value;
        const char *expected;
    } rows[] = {
        {0.0, "0.0"},
        {-0.0, "-0.0"},
        {1.0, "1.0"},
        {-1.5, "-1.5"},
        {0.1, "0.1"},
        {0.1 + 0.2, "0.30000000000000004"},
        {100.0, "100.0"},
        {123456789.25, "123456789.25"},
        {1e15, "1000000000000000.0"},
        {1e16, "1e+16"},
        {1.5e16, "1.5e+16"},
        {9007199254740993.0, "9007199254740992.0"},
        {123456789012345680.0, "1.2345678901234568e+17"},
        {0.0001, "0.0001"},
        {0.00012345, "0.00012345"},
        {0.00001, "1e-05"},
        {5e-5, "5e-05"},
        {1e22, "1e+22"},
        {1e100, "1e+100"},
        {1.7976931348623157e308, "1.7976931348623157e+308"},
        {2.2250738585072014e-308, "2.2250738585072014e-308"},
        {5e-324, "5e-324"},
        {1.0 / 3, "0.3333333333333333"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; ++i) {
        Text text = {0};
        assert_ok(json_value_write_real(rows[i].value, &text));
        assert_string_equal(text.data, rows[i].expected);
        assert_true(strtod(text.data, NULL) == rows[i].value);
        text_free(&text);
    }
}

static void test_read_file(void **state) {
    (void)state;
    char path[] = "/tmp/test_json_value_XXXXXX";
    int descriptor = mkstemp(path);
    assert_true(descriptor >= 0);
    close(descriptor);
    JsonValue *v;
    char place[64];
    assert_ok(file_write_atomic(path, "{\n \"a\": 1}\n", 11));
    assert_ok(json_value_read_file(path, &v));
    assert_int_equal(json_value_integer(json_value_get(v, "a")), 1);
    json_value_free(v);
    assert_ok(file_write_atomic(path, "{\n \"a\": oops}\n", 14));
    snprintf(place, sizeof place, "%s:2: column 10: ", path);
    assert_invalid(json_value_read_file(path, &v), place);
    assert_null(v);
    unlink(path);
    assert_invalid(json_value_read_file(path, &v), path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_input),
        cmocka_unit_test(test_deep_nesting_is_refused),
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_strings_carry_their_length),
        cmocka_unit_test(test_members_in_file_order),
        cmocka_unit_test(test_typed_members),
        cmocka_unit_test(test_building),
        cmocka_unit_test(test_pretty),
        cmocka_unit_test(test_reals),
        cmocka_unit_test(test_read_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
