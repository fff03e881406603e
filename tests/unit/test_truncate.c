/* Shortening in token space: never too long, fixed pieces intact, idempotent, and in the promised order. */
#include "io/random.h"
#include "io/truncate.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <string.h>

enum { MAXIMUM_PIECES = 12 };

static int64_t total(const TruncatePiece *pieces, size_t count, int only_order) {
    int64_t sum = 0;
    for (size_t i = 0; i < count; ++i)
        if (only_order < 0 || pieces[i].order == only_order) sum += pieces[i].tokens;
    return sum;
}

static void fitting_pieces_are_left_alone(void **state) {
    (void)state;
    TruncatePiece pieces[] = {{3, 0, false}, {5, 1, false}, {2, 0, false}};
    assert_true(truncate_pieces(pieces, 3, 10));
    assert_int_equal(pieces[1].tokens, 5);
}

static void an_article_keeps_its_beginning(void **state) {
    (void)state;
    TruncatePiece pieces[] = {{3, 0, false}, {5, 1, false}, {2, 0, false}};
    assert_true(truncate_pieces(pieces, 3, 7));
    assert_int_equal(pieces[0].tokens, 3);
    assert_int_equal(pieces[1].tokens, 2);
    assert_int_equal(pieces[2].tokens, 2);
}

static void what_cannot_fit_is_refused_and_unchanged(void **state) {
    (void)state;
    TruncatePiece pieces[] = {{3, 0, false}, {5, 1, false}, {2, 0, false}};
    assert_false(truncate_pieces(pieces, 3, 4));
    assert_int_equal(pieces[1].tokens, 5);
    assert_true(truncate_pieces(pieces, 3, 5));
    assert_int_equal(pieces[1].tokens, 0);
}

static void turns_go_oldest_first_then_the_document(void **state) {
    (void)state;
    /* template, memory, turns 1 to 3 (the newest last to go), document */
    const TruncatePiece full[] = {{4, 0, false}, {6, 92, false}, {5, 1, true}, {5, 2, true}, {5, 99, false}, {8, 91, false}};
    TruncatePiece pieces[6];
    memcpy(pieces, full, sizeof full);
    assert_true(truncate_pieces(pieces, 6, 31));
    assert_int_equal(pieces[2].tokens, 0); /* whole, although 2 tokens would have been enough */
    assert_int_equal(pieces[3].tokens, 5);
    memcpy(pieces, full, sizeof full);
    assert_true(truncate_pieces(pieces, 6, 20));
    assert_int_equal(pieces[2].tokens + pieces[3].tokens, 0);
    assert_int_equal(pieces[5].tokens, 5);
    assert_int_equal(pieces[1].tokens, 6);
    assert_int_equal(pieces[4].tokens, 5);
    memcpy(pieces, full, sizeof full);
    assert_true(truncate_pieces(pieces, 6, 6));
    assert_int_equal(pieces[4].tokens, 2);
    assert_int_equal(pieces[1].tokens + pieces[5].tokens, 0);
}

static void pieces_of_one_order_go_together(void **state) {
    (void)state;
    TruncatePiece pieces[] = {{2, 1, true}, {3, 1, true}, {4, 0, false}};
    assert_true(truncate_pieces(pieces, 3, 8));
    assert_int_equal(pieces[0].tokens + pieces[1].tokens, 0);
}

static size_t random_pieces(RandomStream *random, TruncatePiece *pieces) {
    size_t count = 1 + (size_t)random_below(random, MAXIMUM_PIECES);
    for (size_t i = 0; i < count; ++i)
        pieces[i] =
            (TruncatePiece){(int64_t)random_below(random, 30), (int)random_below(random, 5), random_below(random, 2) != 0};
    return count;
}

static void properties_hold_for_random_pieces(void **state) {
    (void)state;
    RandomStream random = random_stream(7, 1);
    int refused = 0, shortened = 0;
    for (int round = 0; round < 20000; ++round) {
        TruncatePiece pieces[MAXIMUM_PIECES], before[MAXIMUM_PIECES], again[MAXIMUM_PIECES];
        size_t count = random_pieces(&random, pieces);
        int64_t limit = (int64_t)random_below(&random, 200);
        memcpy(before, pieces, sizeof before);
        bool fits = truncate_pieces(pieces, count, limit);
        assert_int_equal(fits, total(before, count, 0) <= limit);
        if (!fits) {
            ++refused;
            assert_memory_equal(before, pieces, count * sizeof *pieces);
            continue;
        }
        assert_true(total(pieces, count, -1) <= limit);
        assert_int_equal(total(pieces, count, 0), total(before, count, 0));
        shortened += total(pieces, count, -1) < total(before, count, -1);
        int highest = 0; /* the highest order that gave something up: all below it must be gone */
        for (size_t i = 0; i < count; ++i) {
            assert_in_range(pieces[i].tokens, 0, before[i].tokens);
            if (pieces[i].whole && before[i].tokens && pieces[i].order)
                assert_true(!pieces[i].tokens || pieces[i].tokens == before[i].tokens);
            if (pieces[i].tokens < before[i].tokens && pieces[i].order > highest) highest = pieces[i].order;
        }
        for (int order = 1; order < highest; ++order) assert_int_equal(total(pieces, count, order), 0);
        memcpy(again, pieces, sizeof again);
        assert_true(truncate_pieces(again, count, limit));
        assert_memory_equal(again, pieces, count * sizeof *pieces);
    }
    assert_true(refused > 100 && shortened > 1000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fitting_pieces_are_left_alone),
        cmocka_unit_test(an_article_keeps_its_beginning),
        cmocka_unit_test(what_cannot_fit_is_refused_and_unchanged),
        cmocka_unit_test(turns_go_oldest_first_then_the_document),
        cmocka_unit_test(pieces_of_one_order_go_together),
        cmocka_unit_test(properties_hold_for_random_pieces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
