/* Safetensors: what is written reads back, and no damaged or hostile header gets past the reader. */
#include "io/file.h"
#include "io/safetensors.h"
#include "tests/unit/scratch_directory.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void write_raw(const char *path, const void *bytes, size_t length) { assert_ok(file_write_atomic(path, bytes, length)); }

/* A file of the given header and data_bytes zero bytes. */
static void write_file(const char *path, const char *header, size_t data_bytes) {
    Text text = {0};
    uint64_t length = strlen(header);
    assert_ok(text_append(&text, (const char *)&length, 8));
    assert_ok(text_append_string(&text, header));
    for (size_t i = 0; i < data_bytes; ++i) assert_ok(text_append(&text, "", 1));
    write_raw(path, text.data, text.length);
    text_free(&text);
}

/* Opening must fail as invalid input with a message that holds both words. */
static void assert_invalid(const char *path, const char *first, const char *second) {
    Safetensors *file;
    Status status = safetensors_open(path, &file);
    assert_null(file);
    assert_int_equal(status_exit_code(status), STATUS_INVALID);
    if (!strstr(status_message(status), first) || !strstr(status_message(status), second))
        fail_msg("\"%s\" lacks \"%s\" or \"%s\"", status_message(status), first, second);
    status_free(status);
}

static Status fill_with_index(void *context, size_t index, void *buffer) {
    const SafetensorsEntry *entries = context;
    memset(buffer, (int)index + 1, (size_t)entries[index].bytes);
    return STATUS_OK;
}

static void writes_and_reads_back(void **state) {
    (void)state;
    static const float values[6] = {1, -2, 3.5f, -0.0f, 1e-30f, 6};
    const SafetensorsEntry entries[] = {
        {"z.last.name.first", "F32", 2, {2, 3}, values, 24},
        {"a.filled", "BF16", 3, {3, 1, 5}, NULL, 30},
        {"empty", "I64", 2, {0, 7}, NULL, 0},
        {"scalar \"quoted\" \xc3\xbc", "U8", 0, {0}, "\x2a", 1},
    };
    const char *path = in_directory("written.safetensors");
    assert_ok(safetensors_write(path, entries, 4, fill_with_index, (void *)(uintptr_t)entries));
    Safetensors *file;
    assert_ok(safetensors_open(path, &file));
    assert_int_equal(safetensors_count(file), 4);
    assert_string_equal(safetensors_metadata(file, "format"), "pt");
    assert_null(safetensors_metadata(file, "absent"));
    for (size_t i = 0; i < 4; ++i) {
        const SafetensorsEntry *entry = safetensors_find(file, entries[i].name);
        assert_non_null(entry);
        assert_string_equal(entry->dtype, entries[i].dtype);
        assert_int_equal(entry->bytes, entries[i].bytes);
        assert_int_equal(entry->dimensions, entries[i].dimensions);
        assert_memory_equal(entry->shape, entries[i].shape, sizeof *entry->shape * (size_t)entry->dimensions);
        if (entries[i].data) assert_memory_equal(entry->data, entries[i].data, (size_t)entry->bytes);
        if (i) assert_true(strcmp(safetensors_at(file, i - 1)->name, safetensors_at(file, i)->name) < 0);
    }
    const unsigned char *filled = safetensors_find(file, "a.filled")->data;
    for (int i = 0; i < 30; ++i) assert_int_equal(filled[i], 2);
    assert_null(safetensors_find(file, "a.fille"));
    /* Bytes in the order given, from a multiple of 8 on. */
    const char *first = safetensors_find(file, entries[0].name)->data;
    assert_int_equal((uintptr_t)first % 8, 0);
    assert_ptr_equal(filled, first + 24);
    safetensors_close(file);
}

static void refuses_to_write_nonsense(void **state) {
    (void)state;
    const char *path = in_directory("refused.safetensors");
    const SafetensorsEntry twice[] = {{"a", "U8", 0, {0}, "x", 1}, {"b", "U8", 0, {0}, "x", 1}, {"a", "U8", 0, {0}, "x", 1}};
    const SafetensorsEntry wrong[] = {{"short", "F32", 1, {3}, "0123456789ab", 8}};
    const SafetensorsEntry dtype[] = {{"strange", "F31", 1, {1}, "0123", 4}};
    const SafetensorsEntry missing[] = {{"nothing", "U8", 1, {4}, NULL, 4}};
    const struct {
        const SafetensorsEntry *entries;
        size_t count;
        const char *word;
    } cases[] = {
        {twice, 3, "\"a\" is given twice"}, {wrong, 1, "\"short\": 8 bytes"}, {dtype, 1, "F31"}, {missing, 1, "nothing"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
        Status status = safetensors_write(path, cases[i].entries, cases[i].count, NULL, NULL);
        assert_int_equal(status_exit_code(status), STATUS_INVALID);
        assert_non_null(strstr(status_message(status), cases[i].word));
        status_free(status);
        assert_false(file_exists(path));
    }
}

static Status fail_second(void *context, size_t index, void *buffer) {
    (void)context;
    if (index == 1) FAIL("no values");
    memset(buffer, 0, 4);
    return STATUS_OK;
}

static void leaves_the_old_file_when_filling_fails(void **state) {
    (void)state;
    char path[256];
    snprintf(path, sizeof path, "%s/kept/kept.safetensors", directory);
    assert_ok(file_make_directories(in_directory("kept")));
    write_raw(path, "old", 3);
    const SafetensorsEntry entries[] = {{"a", "F32", 1, {1}, NULL, 4}, {"b", "F32", 1, {1}, NULL, 4}};
    Status status = safetensors_write(path, entries, 2, fail_second, NULL);
    assert_int_equal(status_exit_code(status), STATUS_FAILED);
    assert_non_null(strstr(status_message(status), "\"b\": no values"));
    status_free(status);
    Text text = {0};
    assert_ok(file_read(path, &text));
    assert_string_equal(text.data, "old");
    text_free(&text);
    assert_int_equal(rmdir(in_directory("kept")), -1); /* holds the old file ... */
    unlink(path);
    assert_int_equal(rmdir(in_directory("kept")), 0); /* ... and nothing else */
}

#define T(begin, end) "{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[" #begin "," #end "]}"

static void refuses_bad_headers(void **state) {
    (void)state;
    static const struct {
        const char *header;
        size_t data_bytes;
        const char *word;
    } cases[] = {
        {"[1]", 0, "'{'"},
        {"{\"a\":1}", 0, "\"a\""},
        {"{\"a\":" T(0, 8) ",\"a\":" T(8, 16) "}", 16, "duplicate"},
        {"{\"a\":" T(0, 8) "} x", 8, "header"},
        {"{\"a\":" T(0, 8), 8, "header"},
        {"{\"a\":" T(0, 8) "}", 7, "outside"},
        {"{\"a\":" T(0, 8) "}", 9, "belong to no tensor"},
        {"{\"a\":" T(0, 8) ",\"b\":" T(4, 12) "}", 12, "\"b\": its bytes overlap"},
        {"{\"a\":" T(0, 8) ",\"b\":" T(0, 8) "}", 8, "overlap"},
        {"{\"a\":" T(0, 8) ",\"b\":" T(12, 20) "}", 20, "\"b\": 4 bytes between"},
        {"{\"a\":" T(4, 12) "}", 12, "\"a\": 4 bytes between"},
        {"{\"a\":" T(8, 0) "}", 8, "outside"},
        {"{\"a\":" T(-8, 0) "}", 8, "outside"},
        {"{\"a\":" T(0, 4) "}", 4, "span 4 bytes"},
        {"{\"a\":" T(0, 9223372036854775807) "}", 8, "outside"},
        {"{\"a\":" T(0, 9223372036854775808) "}", 8, "header"},
        {"{\"a\":{\"dtype\":\"F33\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "F33"},
        {"{\"a\":{\"dtype\":\"F32\\u0000\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "dtype"},
        {"{\"a\":{\"dtype\":7,\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "dtype"},
        {"{\"a\":{\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "dtype"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", 8, "shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-1,-2],\"data_offsets\":[0,8]}}", 8, "shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2.0],\"data_offsets\":[0,8]}}", 8, "shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":2,\"data_offsets\":[0,8]}}", 8, "shape"},
        /* 4 x 2^32 x 2^32 wraps to 0, 4 x (2^62 + 2) wraps to 8. */
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", 0, "larger than any file"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387906],\"data_offsets\":[0,8]}}", 8, "larger than any file"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,2],\"data_offsets\":[0,8]}}", 8, "9 dimensions"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8,8]}}", 8, "two integers"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,\"8\"]}}", 8, "two integers"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, "data_offsets"},
        {"{\"__metadata__\":{\"format\":1}}", 0, "__metadata__"},
        {"{\"__metadata__\":[]}", 0, "__metadata__"},
        {"{\"\xff\":" T(0, 8) "}", 8, "header"},
    };
    const char *path = in_directory("bad.safetensors");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
        write_file(path, cases[i].header, cases[i].data_bytes);
        assert_invalid(path, "bad.safetensors", cases[i].word);
    }
    /* The same skeleton without the fault is accepted: the cases above fail for the reason they name. */
    write_file(path, "{\"__metadata__\":{\"format\":\"pt\"},\"a\":" T(0, 8) ",\"b\":" T(8, 16) "}   ", 16);
    Safetensors *file;
    assert_ok(safetensors_open(path, &file));
    assert_int_equal(safetensors_count(file), 2);
    safetensors_close(file);
}

static void refuses_bad_lengths(void **state) {
    (void)state;
    const char *path = in_directory("length.safetensors");
    assert_invalid(path, "length.safetensors", "cannot open");
    write_raw(path, "", 0);
    assert_invalid(path, "length.safetensors", "0 bytes");
    write_raw(path, "\2\0\0\0\0\0\0", 7);
    assert_invalid(path, "length.safetensors", "7 bytes");
    write_raw(path, "\0\0\0\0\0\0\0\0", 8);
    assert_invalid(path, "length.safetensors", "'{'");
    write_raw(path, "\3\0\0\0\0\0\0\0{}", 10);
    assert_invalid(path, "length.safetensors", "claims 3 bytes");
    write_raw(path, "\377\377\377\377\377\377\377\377{}", 10);
    assert_invalid(path, "length.safetensors", "claims 18446744073709551615 bytes");
    write_raw(path, "\2\0\0\0\0\0\0\0{}", 10);
    Safetensors *file;
    assert_ok(safetensors_open(path, &file));
    assert_int_equal(safetensors_count(file), 0);
    assert_null(safetensors_find(file, "a"));
    safetensors_close(file);
}

/* More than the reference implementation's 100 MB of header is refused before it is parsed. */
static void refuses_giant_header(void **state) {
    (void)state;
    const char *path = in_directory("giant.safetensors");
    write_raw(path, "\1\341\365\5\0\0\0\0{", 9); /* 100,000,001 */
    assert_int_equal(truncate(path, 8 + 100000001), 0);
    assert_invalid(path, "giant.safetensors", "limit 100000000");
    unlink(path);
}

static void write_index(const char *name, const char *map) {
    Text text = {0};
    assert_ok(text_append_format(&text, "{\"metadata\":{\"total_size\":24},\"weight_map\":%s}", map));
    write_raw(in_directory(name), text.data, text.length);
    text_free(&text);
}

static void reads_shards(void **state) {
    (void)state;
    static const float one[2] = {1, 2}, two[2] = {3, 4}, three[2] = {5, 6};
    const SafetensorsEntry first[] = {{"b", "F32", 1, {2}, one, 8}, {"not.in.index", "F32", 1, {2}, two, 8}};
    const SafetensorsEntry second[] = {{"c", "F32", 1, {2}, three, 8}, {"a", "F32", 1, {2}, two, 8}};
    assert_ok(safetensors_write(in_directory("model-1.safetensors"), first, 2, NULL, NULL));
    assert_ok(safetensors_write(in_directory("model-2.safetensors"), second, 2, NULL, NULL));
    write_index("model.safetensors.index.json",
                "{\"c\":\"model-2.safetensors\",\"b\":\"model-1.safetensors\",\"a\":\"model-2.safetensors\"}");
    const char *paths[] = {directory, in_directory("model.safetensors.index.json")};
    for (int i = 0; i < 2; ++i) {
        Safetensors *file;
        assert_ok(safetensors_open(paths[i], &file));
        assert_int_equal(safetensors_count(file), 3);
        assert_string_equal(safetensors_at(file, 0)->name, "a");
        assert_string_equal(safetensors_at(file, 2)->name, "c");
        assert_memory_equal(safetensors_find(file, "a")->data, two, 8);
        assert_memory_equal(safetensors_find(file, "b")->data, one, 8);
        assert_memory_equal(safetensors_find(file, "c")->data, three, 8);
        assert_string_equal(safetensors_metadata(file, "format"), "pt");
        safetensors_close(file);
    }
}

static void refuses_bad_indices(void **state) {
    (void)state;
    const SafetensorsEntry entries[] = {{"b", "U8", 1, {2}, "xy", 2}};
    assert_ok(safetensors_write(in_directory("shard.safetensors"), entries, 1, NULL, NULL));
    static const struct {
        const char *map, *word;
    } cases[] = {
        {"{\"b\":\"shard.safetensors\",\"missing\":\"shard.safetensors\"}", "\"missing\" is not in"},
        {"{\"b\":\"absent.safetensors\"}", "absent.safetensors"},
        {"{\"b\":\"../shard.safetensors\"}", "not a plain file name"},
        {"{\"b\":\"/etc/passwd\"}", "not a plain file name"},
        {"{\"b\":\"..\"}", "not a plain file name"},
        {"{\"b\":\"\"}", "not a plain file name"},
        {"{\"b\":\"shard.safetensors\\u0000\"}", "not a plain file name"},
        {"{\"b\":1}", "must be a string"},
        {"[]", "weight_map"},
        {"{}", "weight_map"},
        {"{\"b\":\"shard.safetensors\",\"b\":\"shard.safetensors\"}", "duplicate"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
        write_index("bad.index.json", cases[i].map);
        assert_invalid(in_directory("bad.index.json"), "bad.index.json", cases[i].word);
    }
    write_raw(in_directory("bad.index.json"), "[]", 2);
    assert_invalid(in_directory("bad.index.json"), "bad.index.json", "weight_map");
    assert_ok(file_make_directories(in_directory("empty")));
    assert_invalid(in_directory("empty"), "empty", "adapter_model.safetensors");
}

static void fingerprint(const SafetensorsEntry *entries, size_t count, char hex[65]) {
    const char *path = in_directory("fingerprint.safetensors");
    assert_ok(safetensors_write(path, entries, count, NULL, NULL));
    Safetensors *file;
    assert_ok(safetensors_open(path, &file));
    assert_ok(safetensors_fingerprint(file, hex));
    safetensors_close(file);
}

static void fingerprint_sees_names_shapes_and_both_ends(void **state) {
    (void)state;
    enum { BYTES = 300000 };
    unsigned char *values = calloc(BYTES, 1);
    assert_non_null(values);
    SafetensorsEntry entries[] = {{"big", "U8", 1, {BYTES}, values, BYTES}, {"a", "U8", 2, {2, 3}, "abcdef", 6}};
    char original[65], changed[65];
    fingerprint(entries, 2, original);
    /* The order in the file does not count. */
    SafetensorsEntry swapped[] = {entries[1], entries[0]};
    fingerprint(swapped, 2, changed);
    assert_string_equal(original, changed);
    static const int positions[] = {0, 65535, BYTES - 65536, BYTES - 1};
    for (size_t i = 0; i < 4; ++i) {
        values[positions[i]] ^= 1;
        fingerprint(entries, 2, changed);
        assert_string_not_equal(original, changed);
        values[positions[i]] ^= 1;
    }
    entries[1].shape[0] = 3, entries[1].shape[1] = 2;
    fingerprint(entries, 2, changed);
    assert_string_not_equal(original, changed);
    entries[1].shape[0] = 2, entries[1].shape[1] = 3, entries[1].name = "b";
    fingerprint(entries, 2, changed);
    assert_string_not_equal(original, changed);
    entries[1].name = "a", entries[1].dtype = "I8";
    fingerprint(entries, 2, changed);
    assert_string_not_equal(original, changed);
    free(values);
}

static void fingerprint_follows_its_definition(void **state) {
    (void)state;
    /* printf 'a\0U8\0' + 2, 2, 3 as 64-bit integers + 'abcdef' | sha256sum */
    const SafetensorsEntry entries[] = {{"a", "U8", 2, {2, 3}, "abcdef", 6}};
    char hex[65];
    fingerprint(entries, 1, hex);
    assert_string_equal(hex, "14ff303a796d08735c0f6092f1ee9a90a8d4e513f3c0470557332a93bd600a3c");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_and_reads_back),
        cmocka_unit_test(refuses_to_write_nonsense),
        cmocka_unit_test(leaves_the_old_file_when_filling_fails),
        cmocka_unit_test(refuses_bad_headers),
        cmocka_unit_test(refuses_bad_lengths),
        cmocka_unit_test(refuses_giant_header),
        cmocka_unit_test(reads_shards),
        cmocka_unit_test(refuses_bad_indices),
        cmocka_unit_test(fingerprint_sees_names_shapes_and_both_ends),
        cmocka_unit_test(fingerprint_follows_its_definition),
    };
    return cmocka_run_group_tests_name("safetensors", tests, make_directory, remove_directory);
}
