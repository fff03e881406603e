/* SHA-256 against the examples of FIPS 180 and NIST, in one piece and in every split. */
#include "io/sha256.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

static void assert_digest(const void *bytes, size_t length, const char *expected) {
    Sha256 hash;
    char hex[65];
    sha256_init(&hash);
    sha256_update(&hash, bytes, length);
    sha256_hex(&hash, hex);
    assert_string_equal(hex, expected);
}

static void test_published_examples(void **state) {
    (void)state;
    static const struct {
        const char *text, *expected;
    } rows[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
        {"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu",
         "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; ++i) assert_digest(rows[i].text, strlen(rows[i].text), rows[i].expected);
}

static void test_million_letters(void **state) {
    (void)state;
    char *text = malloc(1000000);
    assert_non_null(text);
    memset(text, 'a', 1000000);
    assert_digest(text, 1000000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    free(text);
}

/* Lengths around the block and padding boundaries, cut in two at every place. */
static void test_splits_agree(void **state) {
    (void)state;
    unsigned char bytes[200];
    for (size_t i = 0; i < sizeof bytes; ++i) bytes[i] = (unsigned char)(i * 37 + 11);
    for (size_t length = 50; length <= sizeof bytes; ++length) {
        char whole[65];
        Sha256 hash;
        sha256_init(&hash);
        sha256_update(&hash, bytes, length);
        sha256_hex(&hash, whole);
        for (size_t cut = 0; cut <= length; ++cut) {
            char parts[65];
            sha256_init(&hash);
            sha256_update(&hash, bytes, cut);
            sha256_update(&hash, bytes + cut, length - cut);
            sha256_hex(&hash, parts);
            assert_string_equal(parts, whole);
        }
    }
}

/* Any state and any number of blocks, at addresses of any alignment. */
static void test_instructions_agree_with_portable(void **state) {
    (void)state;
    Sha256Compress *compress = sha256_compress_x86();
    if (!compress) {
        print_message("skipped: this machine has no SHA instructions of x86\n");
        skip();
    }
    unsigned char bytes[64 * 20 + 16];
    uint32_t random = 1;
    for (int round = 0; round < 200; ++round) {
        uint32_t expected[8], actual[8];
        for (size_t i = 0; i < sizeof bytes; ++i) bytes[i] = (unsigned char)((random = random * 1664525 + 1013904223) >> 24);
        for (int i = 0; i < 8; ++i) expected[i] = actual[i] = random = random * 1664525 + 1013904223;
        size_t count = (size_t)(round % 21);
        sha256_compress_portable(expected, bytes + round % 16, count);
        compress(actual, bytes + round % 16, count);
        assert_memory_equal(actual, expected, sizeof actual);
    }
}

/* A checkpoint's digest must not depend on the machine: init may choose either. */
static void test_portable_digest(void **state) {
    (void)state;
    Sha256 hash;
    char hex[65];
    sha256_init(&hash);
    hash.compress = sha256_compress_portable;
    sha256_update(&hash, "abc", 3);
    sha256_hex(&hash, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published_examples), cmocka_unit_test(test_million_letters),
        cmocka_unit_test(test_splits_agree),       cmocka_unit_test(test_instructions_agree_with_portable),
        cmocka_unit_test(test_portable_digest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
