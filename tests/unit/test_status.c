/* Errors carry their class, message, prefix and the way they took. */
#include "io/status.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

static Status innermost(void) { INVALID("line %d is wrong", 7); }

static Status outer(void) {
    TRY(innermost());
    return STATUS_OK;
}

static Status with_cleanup(Status given, int *cleaned) {
    Status status;
    TRY_GOTO(given, done);
done:
    ++*cleaned;
    return status;
}

static Status allocate_nothing(void) {
    void *memory = NULL;
    TRY_ALLOC(memory);
    return STATUS_OK;
}

static void test_success_is_null(void **state) {
    (void)state;
    assert_int_equal(status_exit_code(STATUS_OK), 0);
    assert_string_equal(status_message(STATUS_OK), "ok");
    assert_string_equal(status_positions(STATUS_OK), "");
    assert_null(status_prefix(STATUS_OK, "file"));
    status_free(STATUS_OK);
}

static void test_class_is_exit_code(void **state) {
    (void)state;
    const StatusClass classes[] = {STATUS_FAILED, STATUS_INVALID, STATUS_STOPPED, STATUS_DIVERGED};
    const int codes[] = {1, 2, 75, 76};
    for (size_t i = 0; i < 4; ++i) {
        Status status = status_new(classes[i], "x/y.c", 3, "%s", "why");
        assert_int_equal(status_exit_code(status), codes[i]);
        assert_string_equal(status_message(status), "why");
        assert_string_equal(status_positions(status), "y.c:3");
        status_free(status);
    }
}

static void test_try_records_positions(void **state) {
    (void)state;
    Status status = outer();
    assert_int_equal(status_exit_code(status), STATUS_INVALID);
    assert_string_equal(status_message(status), "line 7 is wrong");
    const char *arrow = strstr(status_positions(status), " < test_status.c:");
    assert_non_null(arrow);
    assert_null(strstr(arrow + 1, " < "));
    status_free(status);
}

static void test_try_goto_cleans_up(void **state) {
    (void)state;
    int cleaned = 0;
    assert_null(with_cleanup(STATUS_OK, &cleaned));
    Status status = with_cleanup(innermost(), &cleaned);
    assert_int_equal(status_exit_code(status), STATUS_INVALID);
    assert_int_equal(cleaned, 2);
    status_free(status);
}

static void test_prefix_stands_in_front(void **state) {
    (void)state;
    Status status = status_prefix(status_prefix(innermost(), "%s", "b"), "%c", 'a');
    assert_string_equal(status_message(status), "a: b: line 7 is wrong");
    status_free(status);
}

static void test_allocation_failure(void **state) {
    (void)state;
    Status status = allocate_nothing();
    assert_int_equal(status_exit_code(status), STATUS_FAILED);
    assert_non_null(strstr(status_message(status), "out of memory"));
    status_free(status);
}

static void test_long_chain_is_cut(void **state) {
    (void)state;
    Status status = innermost();
    for (int i = 0; i < 1000; ++i) status_trace(status, "some_long_file_name.c", i);
    assert_true(strlen(status_positions(status)) < 512);
    status_free(status);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_success_is_null),        cmocka_unit_test(test_class_is_exit_code),
        cmocka_unit_test(test_try_records_positions),  cmocka_unit_test(test_try_goto_cleans_up),
        cmocka_unit_test(test_prefix_stands_in_front), cmocka_unit_test(test_allocation_failure),
        cmocka_unit_test(test_long_chain_is_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
