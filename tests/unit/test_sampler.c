/* The sample order and its distribution: everything a pure function of (seed, step, lengths). */
#include "dist/sampler.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

/* Lengths between 1 and 400, uneven on purpose; every 17th sample is far longer than the others. */
static int32_t uneven_length(const void *context, int64_t sample) {
    (void)context;
    uint64_t x = (uint64_t)sample * 0x9E3779B97F4A7C15u;
    return sample % 17 == 3 ? 1500 : (int32_t)(1 + (x >> 40) % 400);
}

static int32_t constant_length(const void *context, int64_t sample) {
    (void)sample;
    return *(const int32_t *)context;
}

static SamplerSettings uneven(int64_t samples, int64_t global_batch, int64_t micro, int64_t max_tokens, int world) {
    return (SamplerSettings){.seed = 42,
                             .shuffle = true,
                             .samples = samples,
                             .global_batch = global_batch,
                             .micro_batch_samples = micro,
                             .max_tokens = max_tokens,
                             .world = world,
                             .length = uneven_length};
}

static Sampler *create(SamplerSettings settings) {
    Sampler *sampler;
    Status status = sampler_create(&settings, &sampler);
    if (status) fail_msg("%s", status_message(status));
    return sampler;
}

static GlobalBatch batch_of(Sampler *sampler, int64_t step) {
    GlobalBatch batch;
    Status status = sampler_batch(sampler, step, &batch);
    if (status) fail_msg("%s", status_message(status));
    return batch;
}

static void assert_same(const GlobalBatch *a, const GlobalBatch *b, bool with_ranks) {
    assert_int_equal(a->step, b->step);
    assert_int_equal(a->epoch, b->epoch);
    assert_int_equal(a->cursor, b->cursor);
    assert_int_equal(a->sample_count, b->sample_count);
    assert_memory_equal(a->samples, b->samples, (size_t)a->sample_count * sizeof *a->samples);
    assert_int_equal(a->micro_batch_count, b->micro_batch_count);
    for (int64_t i = 0; i < a->micro_batch_count; ++i) {
        assert_int_equal(a->micro_batches[i].first, b->micro_batches[i].first);
        assert_int_equal(a->micro_batches[i].count, b->micro_batches[i].count);
        assert_int_equal(a->micro_batches[i].tokens, b->micro_batches[i].tokens);
        if (with_ranks) assert_int_equal(a->micro_batches[i].rank, b->micro_batches[i].rank);
    }
}

/* Micro-batches follow each other without a gap, keep both limits, and none could have taken its successor's first sample. */
static void check_micro_batches(const SamplerSettings *s, const GlobalBatch *batch) {
    int64_t next = 0;
    for (int64_t m = 0; m < batch->micro_batch_count; ++m) {
        const MicroBatch *micro = &batch->micro_batches[m];
        int64_t tokens = 0;
        assert_int_equal(micro->first, next);
        assert_in_range(micro->count, 1, s->micro_batch_samples);
        for (int64_t i = 0; i < micro->count; ++i) tokens += s->length(s->context, batch->samples[micro->first + i]);
        next += micro->count;
        assert_int_equal(micro->tokens, tokens);
        assert_in_range(micro->rank, 0, s->world - 1);
        if (s->max_tokens > 0 && micro->count > 1) assert_true(tokens <= s->max_tokens);
        if (next < batch->sample_count) {
            bool full = micro->count == s->micro_batch_samples;
            bool overflows = s->max_tokens > 0 && tokens + s->length(s->context, batch->samples[next]) > s->max_tokens;
            assert_true(full || overflows);
        }
    }
    assert_int_equal(next, batch->sample_count);
}

static const SamplerSettings *awkward_settings(size_t *count) {
    static SamplerSettings all[9];
    const int64_t rows[9][5] = {/* samples, global batch, micro-batch, max tokens, world */
                                {1, 1, 1, 0, 1},       {1, 64, 8, 0, 4},     {7, 3, 2, 0, 2},
                                {100, 10, 3, 0, 3},    {101, 10, 3, 700, 4}, {97, 97, 8, 512, 5},
                                {1000, 48, 5, 900, 7}, {257, 16, 16, 1, 2},  {64, 1000, 4, 0, 64}};
    for (size_t i = 0; i < 9; ++i) all[i] = uneven(rows[i][0], rows[i][1], rows[i][2], rows[i][3], (int)rows[i][4]);
    *count = 9;
    return all;
}

static void test_every_epoch_holds_each_sample_once(void **state) {
    (void)state;
    size_t count;
    const SamplerSettings *all = awkward_settings(&count);
    for (size_t c = 0; c < count; ++c) {
        Sampler *sampler = create(all[c]);
        int64_t steps = sampler_steps_per_epoch(sampler);
        assert_int_equal(steps, (all[c].samples + all[c].global_batch - 1) / all[c].global_batch);
        int *seen = calloc((size_t)all[c].samples, sizeof *seen);
        for (int64_t step = 0; step < 3 * steps; ++step) {
            GlobalBatch batch = batch_of(sampler, step);
            int64_t within = step % steps, last = all[c].samples - (steps - 1) * all[c].global_batch;
            assert_int_equal(batch.step, step);
            assert_int_equal(batch.epoch, step / steps);
            assert_int_equal(batch.sample_count, within == steps - 1 ? last : all[c].global_batch);
            assert_int_equal(batch.cursor, within == steps - 1 ? all[c].samples : (within + 1) * all[c].global_batch);
            check_micro_batches(&all[c], &batch);
            for (int64_t i = 0; i < batch.sample_count; ++i) seen[batch.samples[i]] += 1;
            for (int64_t i = 0; within == steps - 1 && i < all[c].samples; ++i) assert_int_equal(seen[i], batch.epoch + 1);
            global_batch_free(&batch);
        }
        free(seen);
        sampler_destroy(sampler);
    }
}

static void test_world_changes_only_the_ranks(void **state) {
    (void)state;
    SamplerSettings settings = uneven(300, 32, 3, 800, 1);
    Sampler *one = create(settings);
    for (int world = 2; world <= 64; world *= 2) {
        settings.world = world;
        Sampler *many = create(settings);
        for (int64_t step = 0; step < 12; ++step) {
            GlobalBatch a = batch_of(one, step), b = batch_of(many, step);
            assert_same(&a, &b, false);
            global_batch_free(&a);
            global_batch_free(&b);
        }
        sampler_destroy(many);
    }
    sampler_destroy(one);
}

static void test_seek_equals_walk(void **state) {
    (void)state;
    SamplerSettings settings = uneven(101, 10, 3, 700, 4);
    Sampler *walker = create(settings), *jumper = create(settings);
    for (int64_t step = 0; step < 40; ++step) {
        GlobalBatch a = batch_of(walker, step), far = batch_of(jumper, 1000 - 7 * step), b = batch_of(jumper, step);
        Sampler *fresh = create(settings);
        GlobalBatch c = batch_of(fresh, step);
        assert_same(&a, &b, true);
        assert_same(&a, &c, true);
        global_batch_free(&a);
        global_batch_free(&far);
        global_batch_free(&b);
        global_batch_free(&c);
        sampler_destroy(fresh);
    }
    sampler_destroy(walker);
    sampler_destroy(jumper);
}

/* Greedy assignment keeps every pair of ranks within its largest micro-batch of each other, whatever the lengths are. */
static void test_ranks_are_balanced(void **state) {
    (void)state;
    for (int world = 1; world <= 16; world += 3) {
        SamplerSettings settings = uneven(4000, 256, 4, 2000, world);
        Sampler *sampler = create(settings);
        for (int64_t step = 0; step < 15; ++step) {
            int64_t load[16] = {0}, largest = 0, total = 0, heaviest = 0, lightest = INT64_MAX;
            GlobalBatch batch = batch_of(sampler, step);
            for (int64_t m = 0; m < batch.micro_batch_count; ++m) {
                const MicroBatch *micro = &batch.micro_batches[m];
                load[micro->rank] += micro->tokens;
                total += micro->tokens;
                if (micro->tokens > largest) largest = micro->tokens;
            }
            for (int rank = 0; rank < world; ++rank) {
                if (load[rank] > heaviest) heaviest = load[rank];
                if (load[rank] < lightest) lightest = load[rank];
            }
            assert_true(heaviest - lightest <= largest);
            /* 64 micro-batches or more on at most 16 ranks: LPT ends close to even. */
            assert_true((double)heaviest <= 1.12 * (double)total / world);
            global_batch_free(&batch);
        }
        sampler_destroy(sampler);
    }
}

static void test_equal_lengths_go_round_in_rank_order(void **state) {
    (void)state;
    int32_t length = 100;
    SamplerSettings settings = uneven(12, 12, 2, 0, 4);
    settings.length = constant_length;
    settings.context = &length;
    const int expected[] = {0, 1, 2, 3, 0, 1};
    Sampler *sampler = create(settings);
    GlobalBatch batch = batch_of(sampler, 0);
    assert_int_equal(batch.micro_batch_count, 6);
    for (int m = 0; m < 6; ++m) assert_int_equal(batch.micro_batches[m].rank, expected[m]);
    global_batch_free(&batch);
    sampler_destroy(sampler);
}

static void test_long_sample_stands_alone(void **state) {
    (void)state;
    SamplerSettings settings = uneven(6, 6, 6, 1000, 1);
    settings.shuffle = false; /* sample 3 has 1500 tokens */
    Sampler *sampler = create(settings);
    GlobalBatch batch = batch_of(sampler, 0);
    bool found = false;
    for (int64_t m = 0; m < batch.micro_batch_count; ++m)
        if (batch.micro_batches[m].tokens > 1000) {
            assert_int_equal(batch.micro_batches[m].count, 1);
            assert_int_equal(batch.samples[batch.micro_batches[m].first], 3);
            found = true;
        }
    assert_true(found);
    for (int64_t i = 0; i < 6; ++i) assert_int_equal(batch.samples[i], i);
    global_batch_free(&batch);
    sampler_destroy(sampler);
}

/* Computed by an independent implementation of Philox 4x32-10 and Fisher-Yates. A version that changed the order would
 * silently break the promise that a restarted run continues as if it had never stopped. */
static void test_golden_order(void **state) {
    (void)state;
    const struct {
        uint64_t seed;
        int64_t epoch, order[16];
    } golden[] = {
        {42, 0, {9, 4, 12, 6, 15, 11, 1, 10, 0, 7, 2, 8, 14, 3, 13, 5}},
        {42, 1, {10, 0, 9, 2, 11, 1, 15, 6, 5, 13, 3, 14, 12, 8, 4, 7}},
        {((uint64_t)1 << 40) + 7, 3, {3, 7, 10, 2, 11, 6, 13, 4, 15, 14, 5, 0, 8, 9, 1, 12}},
    };
    for (size_t i = 0; i < sizeof golden / sizeof *golden; ++i) {
        SamplerSettings settings = uneven(16, 16, 4, 0, 1);
        settings.seed = golden[i].seed;
        Sampler *sampler = create(settings);
        GlobalBatch batch = batch_of(sampler, golden[i].epoch);
        assert_memory_equal(batch.samples, golden[i].order, sizeof golden[i].order);
        global_batch_free(&batch);
        sampler_destroy(sampler);
    }
    Sampler *sampler = create(uneven(1000, 1000, 4, 0, 1));
    GlobalBatch batch = batch_of(sampler, 5);
    uint64_t hash = 0xCBF29CE484222325u; /* FNV-1a over the sample numbers */
    for (int64_t i = 0; i < 1000; ++i) hash = (hash ^ (uint64_t)batch.samples[i]) * 0x100000001B3u;
    assert_int_equal(hash, 0x88d4b1eeadf76a8du);
    global_batch_free(&batch);
    sampler_destroy(sampler);
}

static void test_golden_micro_batches(void **state) {
    (void)state;
    static const int64_t firsts[] = {0, 2, 5, 7, 8}, counts[] = {2, 3, 2, 1, 2}, tokens[] = {320, 498, 257, 1500, 405};
    static const int ranks[] = {2, 1, 1, 0, 2};
    Sampler *sampler = create(uneven(50, 10, 3, 600, 3));
    GlobalBatch batch = batch_of(sampler, 1);
    assert_int_equal(batch.micro_batch_count, 5);
    for (int m = 0; m < 5; ++m) {
        assert_int_equal(batch.micro_batches[m].first, firsts[m]);
        assert_int_equal(batch.micro_batches[m].count, counts[m]);
        assert_int_equal(batch.micro_batches[m].tokens, tokens[m]);
        assert_int_equal(batch.micro_batches[m].rank, ranks[m]);
    }
    global_batch_free(&batch);
    sampler_destroy(sampler);
}

static void assert_refused(SamplerSettings settings, const char *part) {
    Sampler *sampler;
    Status status = sampler_create(&settings, &sampler);
    assert_int_equal(status_exit_code(status), STATUS_INVALID);
    assert_non_null(strstr(status_message(status), part));
    assert_null(sampler);
    status_free(status);
}

static void test_bad_settings_are_refused(void **state) {
    (void)state;
    assert_refused(uneven(0, 8, 2, 0, 1), "no samples");
    assert_refused(uneven(10, 0, 2, 0, 1), "global batch");
    assert_refused(uneven(10, 8, 0, 0, 1), "micro-batch");
    assert_refused(uneven(10, 8, 2, -1, 1), "max_tokens_per_micro_batch");
    assert_refused(uneven(10, 8, 2, 0, 0), "world");

    int32_t negative = -5;
    SamplerSettings settings = uneven(10, 8, 2, 0, 1);
    settings.length = constant_length;
    settings.context = &negative;
    Sampler *sampler = create(settings);
    GlobalBatch batch;
    Status status = sampler_batch(sampler, 0, &batch);
    assert_non_null(status);
    assert_null(batch.samples);
    status_free(status);
    status = sampler_batch(sampler, -1, &batch);
    assert_non_null(status);
    status_free(status);
    sampler_destroy(sampler);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_epoch_holds_each_sample_once),
        cmocka_unit_test(test_world_changes_only_the_ranks),
        cmocka_unit_test(test_seek_equals_walk),
        cmocka_unit_test(test_ranks_are_balanced),
        cmocka_unit_test(test_equal_lengths_go_round_in_rank_order),
        cmocka_unit_test(test_long_sample_stands_alone),
        cmocka_unit_test(test_golden_order),
        cmocka_unit_test(test_golden_micro_batches),
        cmocka_unit_test(test_bad_settings_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
