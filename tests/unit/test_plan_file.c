/* The file of matmul plans: what is written is read back, and no damage passes for plans. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "io/file.h"
#include "io/plan_file.h"

static char directory[] = "/tmp/adamem-test-plan-file-XXXXXX", path[64];
static const char library[] = "NVIDIA H200, cuBLASLt 130201", plans[] = "any\0bytes\n\xff\n";

static void expect_ok(Status status) {
    if (status) fail_msg("%s", status_message(status));
}

static void expect_refused(const char *bytes, size_t length, const char *word) {
    char name[128];
    Text text;
    expect_ok(file_write_atomic(path, bytes, length));
    Status status = plan_file_read(path, name, &text);
    if (status_exit_code(status) != STATUS_INVALID) fail_msg("accepted %zu bytes", length);
    assert_non_null(strstr(status_message(status), path));
    if (word && !strstr(status_message(status), word)) fail_msg("\"%s\" lacks \"%s\"", status_message(status), word);
    assert_null(text.data);
    status_free(status);
}

static void test_round_trip(void **state) {
    (void)state;
    char name[128];
    Text text;
    for (size_t length = 0; length < sizeof plans; ++length) {
        expect_ok(plan_file_write(path, library, plans, length));
        expect_ok(plan_file_read(path, name, &text));
        assert_string_equal(name, library);
        assert_int_equal(text.length, length);
        if (length > 0) assert_memory_equal(text.data, plans, length);
        text_free(&text);
    }
}

static void test_damage(void **state) {
    (void)state;
    Text good = {0};
    expect_ok(plan_file_write(path, library, plans, sizeof plans));
    expect_ok(file_read(path, &good));
    for (size_t length = 0; length < good.length; ++length) expect_refused(good.data, length, NULL);
    for (size_t i = 0; i < good.length; ++i) {
        good.data[i] ^= 1;
        expect_refused(good.data, good.length, NULL);
        good.data[i] ^= 1;
    }
    good.data[20] = '2';
    expect_refused(good.data, good.length, "of another version");
    good.data[20] = '1';
    good.data[good.length - 1] ^= 1;
    expect_refused(good.data, good.length, "its checksum does not fit");
    expect_refused("{}", 2, "not a file of matmul plans");
    text_free(&good);
}

static int make_directory(void **state) {
    (void)state;
    if (!mkdtemp(directory)) return -1;
    snprintf(path, sizeof path, "%s/matmul_plans.bin", directory);
    return 0;
}

static int remove_directory(void **state) {
    (void)state;
    return unlink(path) || rmdir(directory);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_round_trip), cmocka_unit_test(test_damage)};
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
