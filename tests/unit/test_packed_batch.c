/* Packed batches against a definition written out by hand and against a plain loop on random batches. */
#include "io/dataset.h"
#include "io/packed_batch.h"
#include "io/random.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <string.h>

static void two_sequences_by_hand(void **state) {
    (void)state;
    const int32_t ids[] = {10, 11, 12, 20, 21}, labels[] = {-100, 11, 12, 20, -100};
    const int64_t ends[] = {3, 5}, samples[] = {7, 4};
    PackedBatch batch;
    assert_null(packed_batch_build(ids, labels, ends, samples, 2, &batch));
    assert_int_equal(batch.tokens, 5);
    assert_int_equal(batch.sequences, 2);
    assert_int_equal(batch.longest, 3);
    assert_int_equal(batch.label_count, 2); /* label 20 stands at position 0: nothing predicts it */
    const int32_t positions[] = {0, 1, 2, 0, 1}, offsets[] = {0, 3, 5}, sequence[] = {0, 0, 0, 1, 1}, rows[] = {0, 1},
                  wanted[] = {11, 12};
    assert_memory_equal(batch.input_ids, ids, sizeof ids);
    assert_memory_equal(batch.positions, positions, sizeof positions);
    assert_memory_equal(batch.offsets, offsets, sizeof offsets);
    assert_memory_equal(batch.sample_of_token, sequence, sizeof sequence);
    assert_memory_equal(batch.samples, samples, sizeof samples);
    assert_memory_equal(batch.label_rows, rows, sizeof rows);
    assert_memory_equal(batch.label_ids, wanted, sizeof wanted);
    packed_batch_free(&batch);
}

static void an_empty_batch_is_a_batch(void **state) {
    (void)state;
    PackedBatch batch;
    assert_null(packed_batch_build(NULL, NULL, NULL, NULL, 0, &batch));
    assert_int_equal(batch.tokens + batch.sequences + batch.label_count, 0);
    assert_int_equal(batch.offsets[0], 0);
    packed_batch_free(&batch);
}

static void impossible_ends_are_refused(void **state) {
    (void)state;
    const int32_t ids[4] = {0}, labels[4] = {0};
    const int64_t samples[2] = {0}, empty[] = {2, 2}, first[] = {0, 2}, huge[] = {1, (int64_t)1 << 31};
    PackedBatch batch;
    const int64_t *cases[] = {empty, first, huge};
    for (int i = 0; i < 3; ++i) {
        Status status = packed_batch_build(ids, labels, cases[i], samples, 2, &batch);
        assert_int_equal(status_exit_code(status), 2);
        assert_null(batch.input_ids);
        status_free(status);
    }
}

/* Rows rise strictly, stay inside their sequence, and cover exactly the labels that count. */
static void properties_hold_for_random_batches(void **state) {
    (void)state;
    RandomStream random = random_stream(3, 2);
    for (int round = 0; round < 500; ++round) {
        int64_t sequences = 1 + (int64_t)random_below(&random, 8), ends[8], samples[8], tokens = 0, counted = 0;
        int32_t ids[8 * 20], labels[8 * 20];
        for (int64_t s = 0; s < sequences; ++s) {
            samples[s] = (int64_t)random_below(&random, 1000);
            int64_t length = 1 + (int64_t)random_below(&random, 20);
            for (int64_t i = 0; i < length; ++i, ++tokens) {
                ids[tokens] = (int32_t)random_below(&random, 100);
                labels[tokens] = random_below(&random, 2) ? ids[tokens] : LABEL_IGNORED;
                counted += i > 0 && labels[tokens] != LABEL_IGNORED;
            }
            ends[s] = tokens;
        }
        PackedBatch batch;
        assert_null(packed_batch_build(ids, labels, ends, samples, sequences, &batch));
        assert_int_equal(batch.label_count, counted);
        for (int64_t i = 0; i < batch.label_count; ++i) {
            int32_t row = batch.label_rows[i];
            if (i) assert_true(row > batch.label_rows[i - 1]);
            assert_int_equal(batch.label_ids[i], labels[row + 1]);
            assert_int_equal(batch.sample_of_token[row], batch.sample_of_token[row + 1]);
        }
        for (int64_t i = 0; i < tokens; ++i) assert_int_equal(batch.positions[i], i - batch.offsets[batch.sample_of_token[i]]);
        packed_batch_free(&batch);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_sequences_by_hand),
        cmocka_unit_test(an_empty_batch_is_a_batch),
        cmocka_unit_test(impossible_ends_are_refused),
        cmocka_unit_test(properties_hold_for_random_batches),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
