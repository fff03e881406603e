/* JSON values, read and built. A thin, typed face over jansson so that no other folder includes it.
 *
 * Ownership: json_value_parse* and json_value_new_* return a reference that the caller frees with json_value_free;
 * json_value_get and json_value_at return borrowed values that live as long as their parent. set/append steal the
 * reference of the child, also on failure. */
#ifndef IO_JSON_VALUE_H
#define IO_JSON_VALUE_H

#include "io/buffer.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct json_t JsonValue;

/* Parses exactly one JSON value (any type) from length bytes; rejects trailing bytes, duplicate keys and invalid UTF-8.
 * Error: "column N: reason". STATUS_INVALID. */
Status json_value_parse(const char *bytes, size_t length, JsonValue **out);
/* The same with every integer read as a real: for files with integers beyond 64 bits, such as the 1e30 that Transformers
 * writes for a tokenizer without a limit. */
Status json_value_parse_reals(const char *bytes, size_t length, JsonValue **out);
/* Reads a whole file; errors name the file, line and column. */
Status json_value_read_file(const char *path, JsonValue **out);
void json_value_free(JsonValue *value);

bool json_value_is_object(const JsonValue *v);
bool json_value_is_array(const JsonValue *v);
bool json_value_is_string(const JsonValue *v);
bool json_value_is_number(const JsonValue *v);
bool json_value_is_integer(const JsonValue *v);
bool json_value_is_boolean(const JsonValue *v);
bool json_value_is_null(const JsonValue *v);
const char *json_value_type_name(const JsonValue *v); /* "object", "string", ... */

/* NULL when absent or when v is not an object. */
JsonValue *json_value_get(const JsonValue *v, const char *key);
size_t json_value_size(const JsonValue *v); /* of an array or object, else 0 */
JsonValue *json_value_at(const JsonValue *v, size_t index);
/* Object members in file order, one after the other: for (JsonMember m = {0}; json_value_next_member(v, &m);). */
typedef struct JsonMember {
    const char *key;
    JsonValue *value;
    void *iterator;
} JsonMember;
bool json_value_next_member(const JsonValue *v, JsonMember *member);
/* Member number index in file order, NULL past the end. Walks there: for whole objects use json_value_next_member. */
const char *json_value_key_at(const JsonValue *v, size_t index, JsonValue **member);
const char *json_value_string(const JsonValue *v, size_t *length); /* NULL when not a string; length may be NULL */
double json_value_number(const JsonValue *v);                      /* 0 when not a number */
int64_t json_value_integer(const JsonValue *v);
bool json_value_boolean(const JsonValue *v);

/* Typed members. Missing or of another type is STATUS_INVALID naming the key. */
Status json_value_get_string(const JsonValue *v, const char *key, const char **out, size_t *length);
Status json_value_get_integer(const JsonValue *v, const char *key, int64_t *out);
Status json_value_get_number(const JsonValue *v, const char *key, double *out);
Status json_value_get_array(const JsonValue *v, const char *key, JsonValue **out);

JsonValue *json_value_new_object(void);
JsonValue *json_value_new_array(void);
JsonValue *json_value_new_string(const char *bytes, size_t length); /* NULL for invalid UTF-8 */
JsonValue *json_value_new_integer(int64_t value);
JsonValue *json_value_new_number(double value); /* null when not finite: JSON has no NaN */
JsonValue *json_value_new_boolean(bool value);
JsonValue *json_value_new_null(void);
Status json_value_set(JsonValue *object, const char *key, JsonValue *child);
/* The same with a new child of the given value; a real that is not finite becomes null (JSON has no NaN). */
Status json_value_set_string(JsonValue *object, const char *key, const char *value);
Status json_value_set_integer(JsonValue *object, const char *key, int64_t value);
Status json_value_set_number(JsonValue *object, const char *key, double value);
Status json_value_set_boolean(JsonValue *object, const char *key, bool value);
Status json_value_append(JsonValue *array, JsonValue *child);

/* Writes the value: indent 0 = one line with ", " and ": " separators as Python's json.dumps, else pretty.
 * Non-ASCII is left unescaped, key order kept, reals with the shortest form that reads back equal. */
Status json_value_write(const JsonValue *v, int indent, Text *out);
/* The same for one finite real, which always gets a point or an exponent: 1.0, 5e-05. */
Status json_value_write_real(double value, Text *out);

#endif
