#include "io/json_value.h"

#include "io/file.h"

#include <float.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ALLOW_NUL: "\u0000" is legal JSON and occurs in scraped text; strings carry their length. */
#define PARSE_FLAGS (JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL)

static Status syntax_error(const json_error_t *error) {
    const char *kind = json_error_code(error) == json_error_invalid_utf8 ? "invalid UTF-8: " : "";
    INVALID("column %d: %s%s", error->column, kind, error->text);
}

Status json_value_parse(const char *bytes, size_t length, JsonValue **out) {
    json_error_t error;
    *out = json_loadb(bytes, length, PARSE_FLAGS, &error);
    return *out ? STATUS_OK : syntax_error(&error);
}

Status json_value_parse_reals(const char *bytes, size_t length, JsonValue **out) {
    json_error_t error;
    *out = json_loadb(bytes, length, PARSE_FLAGS | JSON_DECODE_INT_AS_REAL, &error);
    return *out ? STATUS_OK : syntax_error(&error);
}

Status json_value_read_file(const char *path, JsonValue **out) {
    *out = NULL;
    Text text = {0};
    json_error_t error;
    Status status;
    TRY_GOTO(file_read(path, &text), done);
    *out = json_loadb(text.data, text.length, PARSE_FLAGS, &error);
    if (!*out) status = status_prefix(syntax_error(&error), "%s:%d", path, error.line);
done:
    text_free(&text);
    return status;
}

void json_value_free(JsonValue *value) { json_decref(value); }

bool json_value_is_object(const JsonValue *v) { return json_is_object(v); }
bool json_value_is_array(const JsonValue *v) { return json_is_array(v); }
bool json_value_is_string(const JsonValue *v) { return json_is_string(v); }
bool json_value_is_number(const JsonValue *v) { return json_is_number(v); }
bool json_value_is_integer(const JsonValue *v) { return json_is_integer(v); }
bool json_value_is_boolean(const JsonValue *v) { return json_is_boolean(v); }
bool json_value_is_null(const JsonValue *v) { return json_is_null(v); }

const char *json_value_type_name(const JsonValue *v) {
    if (!v) return "nothing";
    switch (json_typeof(v)) {
    case JSON_OBJECT: return "object";
    case JSON_ARRAY: return "array";
    case JSON_STRING: return "string";
    case JSON_INTEGER: return "integer";
    case JSON_REAL: return "number";
    case JSON_TRUE:
    case JSON_FALSE: return "boolean";
    case JSON_NULL: return "null";
    }
    return "unknown";
}

JsonValue *json_value_get(const JsonValue *v, const char *key) { return json_object_get(v, key); }
size_t json_value_size(const JsonValue *v) { return json_is_array(v) ? json_array_size(v) : json_object_size(v); }
JsonValue *json_value_at(const JsonValue *v, size_t index) { return json_array_get(v, index); }

bool json_value_next_member(const JsonValue *v, JsonMember *member) {
    /* jansson's iterators do not change the object, but its prototypes predate const. */
    JsonValue *object = (JsonValue *)(uintptr_t)v;
    member->iterator = member->iterator ? json_object_iter_next(object, member->iterator) : json_object_iter(object);
    member->key = json_object_iter_key(member->iterator);
    member->value = json_object_iter_value(member->iterator);
    return member->iterator != NULL;
}

const char *json_value_key_at(const JsonValue *v, size_t index, JsonValue **value) {
    JsonMember member = {0};
    bool found = json_value_next_member(v, &member);
    for (; found && index; --index) found = json_value_next_member(v, &member);
    if (value) *value = found ? member.value : NULL;
    return found ? member.key : NULL;
}

const char *json_value_string(const JsonValue *v, size_t *length) {
    if (length) *length = json_string_length(v);
    return json_string_value(v);
}

double json_value_number(const JsonValue *v) { return json_number_value(v); }
bool json_value_boolean(const JsonValue *v) { return json_is_true(v); }

int64_t json_value_integer(const JsonValue *v) { return json_integer_value(v); }

static Status wrong_type(const JsonValue *v, const char *key, const char *expected) {
    if (!json_is_object(v)) INVALID("expected an object with \"%s\", found %s", key, json_value_type_name(v));
    const JsonValue *member = json_object_get(v, key);
    if (!member) INVALID("\"%s\" is missing", key);
    INVALID("\"%s\" must be %s, found %s", key, expected, json_value_type_name(member));
}

Status json_value_get_string(const JsonValue *v, const char *key, const char **out, size_t *length) {
    const JsonValue *member = json_object_get(v, key);
    if (!json_is_string(member)) return wrong_type(v, key, "a string");
    *out = json_value_string(member, length);
    return STATUS_OK;
}

Status json_value_get_integer(const JsonValue *v, const char *key, int64_t *out) {
    const JsonValue *member = json_object_get(v, key);
    if (!json_is_integer(member)) return wrong_type(v, key, "an integer");
    *out = json_integer_value(member);
    return STATUS_OK;
}

Status json_value_get_number(const JsonValue *v, const char *key, double *out) {
    const JsonValue *member = json_object_get(v, key);
    if (!json_is_number(member)) return wrong_type(v, key, "a number");
    *out = json_number_value(member);
    return STATUS_OK;
}

Status json_value_get_array(const JsonValue *v, const char *key, JsonValue **out) {
    JsonValue *member = json_object_get(v, key);
    if (!json_is_array(member)) return wrong_type(v, key, "an array");
    *out = member;
    return STATUS_OK;
}

JsonValue *json_value_new_object(void) { return json_object(); }
JsonValue *json_value_new_array(void) { return json_array(); }
JsonValue *json_value_new_string(const char *bytes, size_t length) { return json_stringn(bytes, length); }
JsonValue *json_value_new_integer(int64_t value) { return json_integer(value); }
JsonValue *json_value_new_number(double value) { return isfinite(value) ? json_real(value) : json_null(); }
JsonValue *json_value_new_boolean(bool value) { return json_boolean(value); }
JsonValue *json_value_new_null(void) { return json_null(); }

Status json_value_set(JsonValue *object, const char *key, JsonValue *child) {
    if (!child) FAIL("no JSON value for \"%s\": out of memory or invalid UTF-8", key);
    if (json_object_set_new(object, key, child)) FAIL("cannot set JSON member \"%s\"", key);
    return STATUS_OK;
}

Status json_value_set_string(JsonValue *object, const char *key, const char *value) {
    return json_value_set(object, key, json_value_new_string(value, strlen(value)));
}

Status json_value_set_integer(JsonValue *object, const char *key, int64_t value) {
    return json_value_set(object, key, json_value_new_integer(value));
}

Status json_value_set_number(JsonValue *object, const char *key, double value) {
    return json_value_set(object, key, json_value_new_number(value));
}

Status json_value_set_boolean(JsonValue *object, const char *key, bool value) {
    return json_value_set(object, key, json_value_new_boolean(value));
}

Status json_value_append(JsonValue *array, JsonValue *child) {
    if (!child) FAIL("no JSON value for an array item: out of memory or invalid UTF-8");
    if (json_array_append_new(array, child)) FAIL("cannot append to a JSON array");
    return STATUS_OK;
}

static Status write_string(const char *bytes, size_t length, Text *out) {
    static const char named[] = "\b\t\n\v\f\r", letters[] = "btn\0fr";
    TRY(text_append(out, "\"", 1));
    size_t plain = 0; /* start of the run that needs no escape */
    for (size_t i = 0; i < length; ++i) {
        unsigned char c = (unsigned char)bytes[i];
        if (c >= 0x20 && c != '"' && c != '\\') continue;
        TRY(text_append(out, bytes + plain, i - plain));
        plain = i + 1;
        const char *found = c ? strchr(named, c) : NULL;
        char letter = found && c < 0x20 ? letters[found - named] : 0;
        if (c == '"' || c == '\\') letter = (char)c;
        if (letter)
            TRY(text_append_format(out, "\\%c", letter));
        else
            TRY(text_append_format(out, "\\u%04x", c));
    }
    TRY(text_append(out, bytes + plain, length - plain));
    return text_append(out, "\"", 1);
}

/* Significant digits of |x| without trailing zeros, and its decimal exponent. 15 digits name every normal double that has a
 * shorter name, so only 15, 16 and 17 need a trial; subnormal numbers have fewer. */
static int shortest_digits(double x, char digits[20], int *exponent) {
    char buffer[40];
    for (int precision = fabs(x) < DBL_MIN ? 1 : 15; precision <= 17; ++precision) {
        snprintf(buffer, sizeof buffer, "%.*e", precision - 1, fabs(x));
        if (strtod(buffer, NULL) == fabs(x)) break;
    }
    int count = 0;
    const char *p = buffer;
    for (; *p != 'e'; ++p)
        if (*p != '.') digits[count++] = *p;
    *exponent = atoi(p + 1);
    while (count > 1 && digits[count - 1] == '0') --count;
    digits[count] = 0;
    return count;
}

/* As Python's repr: plain notation for 1e-4 <= |x| < 1e16, else exponent notation with at least two exponent digits. */
Status json_value_write_real(double x, Text *out) {
    char digits[20];
    int exponent, count = shortest_digits(x, digits, &exponent);
    if (signbit(x)) TRY(text_append(out, "-", 1));
    if (exponent < -4 || exponent >= 16) {
        const char *point = count > 1 ? "." : "";
        return text_append_format(out, "%c%s%se%c%02d", digits[0], point, digits + 1, exponent < 0 ? '-' : '+', abs(exponent));
    }
    if (exponent < 0) return text_append_format(out, "0.%.*s%s", -exponent - 1, "0000", digits);
    if (count <= exponent + 1) return text_append_format(out, "%s%.*s.0", digits, exponent + 1 - count, "0000000000000000");
    return text_append_format(out, "%.*s.%s", exponent + 1, digits, digits + exponent + 1);
}

static Status write_value(const JsonValue *v, int indent, int depth, Text *out);

/* Between items: ", " on one line, else a line break and the indentation. */
static Status write_break(bool first, int indent, int depth, Text *out) {
    if (!first) TRY(text_append(out, ", ", indent ? 1 : 2));
    if (indent) TRY(text_append_format(out, "\n%*s", indent * depth, ""));
    return STATUS_OK;
}

static Status write_object(const JsonValue *v, int indent, int depth, Text *out) {
    TRY(text_append(out, "{", 1));
    bool first = true;
    for (JsonMember member = {0}; json_value_next_member(v, &member); first = false) {
        TRY(write_break(first, indent, depth + 1, out));
        TRY(write_string(member.key, strlen(member.key), out));
        TRY(text_append(out, ": ", 2));
        TRY(write_value(member.value, indent, depth + 1, out));
    }
    if (!first && indent) TRY(text_append_format(out, "\n%*s", indent * depth, ""));
    return text_append(out, "}", 1);
}

static Status write_array(const JsonValue *v, int indent, int depth, Text *out) {
    TRY(text_append(out, "[", 1));
    size_t size = json_array_size(v);
    for (size_t i = 0; i < size; ++i) {
        TRY(write_break(i == 0, indent, depth + 1, out));
        TRY(write_value(json_array_get(v, i), indent, depth + 1, out));
    }
    if (size && indent) TRY(text_append_format(out, "\n%*s", indent * depth, ""));
    return text_append(out, "]", 1);
}

static Status write_value(const JsonValue *v, int indent, int depth, Text *out) {
    switch (json_typeof(v)) {
    case JSON_OBJECT: return write_object(v, indent, depth, out);
    case JSON_ARRAY: return write_array(v, indent, depth, out);
    case JSON_STRING: return write_string(json_string_value(v), json_string_length(v), out);
    case JSON_INTEGER: return text_append_format(out, "%lld", (long long)json_integer_value(v));
    case JSON_REAL: return json_value_write_real(json_real_value(v), out);
    case JSON_TRUE: return text_append_string(out, "true");
    case JSON_FALSE: return text_append_string(out, "false");
    case JSON_NULL: return text_append_string(out, "null");
    }
    FAIL("unknown kind of JSON value");
}

Status json_value_write(const JsonValue *v, int indent, Text *out) { return write_value(v, indent, 0, out); }
