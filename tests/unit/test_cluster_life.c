/* What training processes know of each other and of their past: the board of ranks, the median of their times, goodput. */
#include "io/file.h"
#include "io/log.h"
#include "trainer/clock.h"
#include "trainer/goodput.h"
#include "trainer/rank_board.h"
#include "trainer/stop.h"
#include "trainer/straggler.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char directory[64];

static int make_directory(void **state) {
    (void)state;
    log_set_level(LOG_ERROR);
    strcpy(directory, "/tmp/adamem-cluster-XXXXXX");
    return mkdtemp(directory) ? 0 : -1;
}

static int remove_directory(void **state) {
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", directory);
    return system(command);
}

static void assert_ok(Status status) {
    if (status) fail_msg("%s", status_message(status));
}

static RankBoard *open_board(int rank) {
    RankBoard *board = NULL;
    assert_ok(rank_board_open(directory, rank, 2, &board));
    return board;
}

static void board_shows_other_ranks(void **state) {
    (void)state;
    RankStatus written = {.pid = 77, .step = 12345678901, .begun = 9, .ended = 8, .idle = 2.5}, read;
    strcpy(written.host, "node17");
    strcpy(written.phase, "loading the model");
    strcpy(written.collective, "integer sum");
    assert_ok(rank_board_clear(directory));
    RankBoard *own = open_board(0), *other = open_board(1);
    assert_false(rank_board_read(own, 1, &read));
    rank_board_write(other, &written);
    written.idle = 3.5; /* shorter or longer, a line replaces the one before */
    strcpy(written.phase, "end");
    rank_board_write(other, &written);
    assert_true(rank_board_read(own, 1, &read));
    assert_string_equal(read.host, "node17");
    assert_string_equal(read.phase, "end");
    assert_string_equal(read.collective, "integer sum");
    assert_int_equal(read.pid, 77);
    assert_true(read.step == 12345678901 && read.begun == 9 && read.ended == 8);
    assert_float_equal(read.idle, 3.5, 1e-6);
    assert_true(read.age >= -0.01 && read.age < 10);
    rank_board_close(other);
    assert_false(rank_board_read(own, 1, &read));
    rank_board_close(own);
    char path[128];
    snprintf(path, sizeof path, "%s/ranks", directory);
    assert_false(file_exists(path));
}

static void board_marks_once(void **state) {
    (void)state;
    assert_ok(rank_board_clear(directory));
    RankBoard *own = open_board(0), *other = open_board(1);
    assert_false(rank_board_is_marked(own, "stop"));
    assert_true(rank_board_mark(other, "stop"));
    assert_false(rank_board_mark(own, "stop"));
    assert_true(rank_board_is_marked(own, "stop"));
    assert_ok(rank_board_clear(directory)); /* the next start does not stop because the last one did */
    assert_false(rank_board_is_marked(own, "stop"));
    rank_board_close(other);
    rank_board_close(own);
}

static void median_is_the_lower_one(void **state) {
    (void)state;
    double two[] = {0.2, 0.1}, four[] = {4, 1, 3, 2}, five[] = {5, 1, 4, 2, 3};
    assert_float_equal(straggler_median(two, 2), 0.1, 0);
    assert_float_equal(straggler_median(four, 4), 2, 0);
    assert_float_equal(straggler_median(five, 5), 3, 0);
    assert_float_equal(straggler_median(five, 0), 0, 0);
}

/* A process of 100 s whose steps 1 to 5 took 10 s each and which died after its checkpoint of step 3. */
static void goodput_counts_what_survived(void **state) {
    (void)state;
    Goodput first, second, third;
    assert_ok(goodput_open(directory, clock_seconds() - 100, 0, &first));
    for (int step = 1; step <= 5; ++step) {
        goodput_add_step(&first, 10);
        if (step == 3) goodput_keep(&first, step);
    }
    assert_float_equal(goodput_share(&first), 0.5, 0.01);
    assert_ok(goodput_open(directory, clock_seconds() - 50, 3, &second));
    assert_int_equal(second.starts, 2);
    for (int step = 4; step <= 8; ++step) goodput_add_step(&second, 10);
    assert_float_equal(goodput_share(&second), 80.0 / 150.0, 0.01);
    goodput_keep(&second, 8);
    assert_ok(goodput_open(directory, clock_seconds(), 0, &third)); /* anew */
    assert_int_equal(third.starts, 1);
    assert_float_equal(third.step_seconds, 0, 0);
}

static void goodput_survives_a_damaged_file(void **state) {
    (void)state;
    char path[128];
    Goodput goodput;
    snprintf(path, sizeof path, "%s/goodput.json", directory);
    assert_ok(file_write_atomic(path, "{\"wall_se", 9));
    assert_ok(goodput_open(directory, clock_seconds(), 3, &goodput));
    assert_int_equal(goodput.starts, 1);
}

static void goodput_remembers_the_newest_checkpoints(void **state) {
    (void)state;
    Goodput goodput;
    assert_ok(goodput_open(directory, clock_seconds() - 1000, 0, &goodput));
    for (int step = 1; step <= 3 * GOODPUT_MARKS; ++step) {
        goodput_add_step(&goodput, 1);
        goodput_keep(&goodput, step);
    }
    assert_ok(goodput_open(directory, clock_seconds(), 3 * GOODPUT_MARKS - 10, &goodput));
    assert_float_equal(goodput.step_seconds, 3 * GOODPUT_MARKS - 10, 1e-9);
}

static void signals_set_the_flag(void **state) {
    (void)state;
    stop_listen();
    assert_false(stop_requested());
    assert_null(stop_check("now"));
    raise(SIGUSR1);
    assert_true(stop_requested());
    stop_relay(); /* does not hide the reason */
    Status status = stop_check("after step 3");
    assert_int_equal(status_exit_code(status), STATUS_STOPPED);
    assert_string_equal(status_message(status), "stopped on request (SIGUSR1) after step 3");
    status_free(status);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(board_shows_other_ranks, make_directory, remove_directory),
        cmocka_unit_test_setup_teardown(board_marks_once, make_directory, remove_directory),
        cmocka_unit_test(median_is_the_lower_one),
        cmocka_unit_test_setup_teardown(goodput_counts_what_survived, make_directory, remove_directory),
        cmocka_unit_test_setup_teardown(goodput_survives_a_damaged_file, make_directory, remove_directory),
        cmocka_unit_test_setup_teardown(goodput_remembers_the_newest_checkpoints, make_directory, remove_directory),
        cmocka_unit_test(signals_set_the_flag),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
