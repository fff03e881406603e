/* Philox 4x32-10 against the known answers of Random123 (kat_vectors), and the distributions made of it. */
#include "io/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdbool.h>

static void test_known_answers(void **state) {
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], expected[4];
    } rows[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; ++i) {
        uint32_t out[4];
        philox4x32(rows[i].key[0], rows[i].key[1], rows[i].counter, out);
        assert_memory_equal(out, rows[i].expected, sizeof out);
    }
}

/* A stream is philox over key = seed and counter = (position, stream). */
static void test_stream_walks_the_counter(void **state) {
    (void)state;
    uint64_t seed = 0x0123456789abcdef, stream = 0xfedcba9876543210;
    RandomStream s = random_stream(seed, stream);
    for (uint32_t block = 0; block < 3; ++block) {
        uint32_t expected[4], counter[4] = {block, 0, (uint32_t)stream, (uint32_t)(stream >> 32)};
        philox4x32((uint32_t)seed, (uint32_t)(seed >> 32), counter, expected);
        for (int i = 0; i < 4; ++i) assert_int_equal(random_u32(&s), expected[i]);
    }
}

static void test_counter_carries(void **state) {
    (void)state;
    RandomStream s = random_stream(1, 2);
    s.counter[0] = UINT32_MAX;
    random_u32(&s);
    assert_int_equal(s.counter[0], 0);
    assert_int_equal(s.counter[1], 1);
}

static void test_uniform_moments(void **state) {
    (void)state;
    RandomStream s = random_stream(42, 0);
    enum { N = 100000 };
    double sum = 0, squares = 0;
    for (int i = 0; i < N; ++i) {
        double u = random_uniform(&s);
        assert_true(u >= 0 && u < 1);
        sum += u, squares += u * u;
    }
    /* Five standard errors. */
    assert_true(fabs(sum / N - 0.5) < 5 * sqrt(1.0 / 12 / N));
    assert_true(fabs(squares / N - 1.0 / 3) < 5 * sqrt(4.0 / 45 / N));
}

static void test_normal_moments(void **state) {
    (void)state;
    RandomStream s = random_stream(42, 1);
    enum { N = 100000 };
    double sum = 0, squares = 0;
    for (int i = 0; i < N; ++i) {
        double x = random_normal(&s);
        assert_true(isfinite(x));
        sum += x, squares += x * x;
    }
    assert_true(fabs(sum / N) < 5 / sqrt(N));
    assert_true(fabs(squares / N - 1) < 5 * sqrt(2.0 / N));
}

static void test_below_covers_its_range(void **state) {
    (void)state;
    RandomStream s = random_stream(7, 7);
    for (uint64_t n = 1; n <= 9; ++n) {
        int seen[9] = {0};
        for (int i = 0; i < 2000; ++i) {
            uint64_t x = random_below(&s, n);
            assert_true(x < n);
            ++seen[x];
        }
        double mean = 2000.0 / (double)n;
        for (uint64_t i = 0; i < n; ++i) assert_true(fabs(seen[i] - mean) < 6 * sqrt(mean));
    }
    uint64_t big = (uint64_t)1 << 63;
    bool above_half = false;
    for (int i = 0; i < 64; ++i) {
        uint64_t x = random_below(&s, big + 1);
        assert_true(x <= big);
        above_half |= x > big / 2;
    }
    assert_true(above_half);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_answers),   cmocka_unit_test(test_stream_walks_the_counter),
        cmocka_unit_test(test_counter_carries), cmocka_unit_test(test_uniform_moments),
        cmocka_unit_test(test_normal_moments),  cmocka_unit_test(test_below_covers_its_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
