/* The emulation of CUDA itself: right kernels give the same right bits in every thread order, and every mistake shows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <math.h>

#include "tests/cuda_on_host/self_test.h"

enum { ORDERS = 5, BLOCKS = 3, COUNT = BLOCKS * 128 };

typedef Status (*Reverse)(float *out, const float *in, int blocks, bool right);

/* In how many of the five orders the kernel reverses every group of `width` elements. */
static int right_orders(Reverse reverse, bool right, int width) {
    float in[COUNT], out[COUNT];
    int count = 0;
    for (int i = 0; i < COUNT; ++i) in[i] = (float)(i + 1);
    for (int order = 0; order < ORDERS; ++order) {
        host_set_thread_order(order);
        memset(out, 0, sizeof out);
        assert_null(reverse(out, in, BLOCKS, right));
        bool same = true;
        for (int i = 0; i < COUNT; ++i) same = same && out[i] == in[i / width * width + width - 1 - i % width];
        count += same;
    }
    return count;
}

static void test_removed_barriers_show(void **state) {
    (void)state;
    assert_int_equal(right_orders(self_test_reverse, true, 128), ORDERS);
    assert_int_equal(right_orders(self_test_reverse_dynamic, true, 128), ORDERS);
    assert_int_equal(right_orders(self_test_reverse_warp, true, 32), ORDERS);
    assert_int_equal(right_orders(self_test_reverse_async, true, 128), ORDERS);
    assert_int_equal(right_orders(self_test_reverse, false, 128), 0);
    assert_int_equal(right_orders(self_test_reverse_dynamic, false, 128), 0);
    assert_int_equal(right_orders(self_test_reverse_warp, false, 32), 0);
    assert_true(right_orders(self_test_reverse_async, false, 128) < ORDERS); /* order 1 copies at once */
}

static void test_shared_memory_is_poisoned(void **state) {
    (void)state;
    float out[4];
    host_set_thread_order(0);
    assert_null(self_test_leftover(out, 4));
    assert_true(out[0] == 1);
    for (int i = 1; i < 4; ++i) assert_true(isnan(out[i]));
}

static void test_atomics(void **state) {
    (void)state;
    float in[COUNT], sums[ORDERS];
    int different = 0;
    for (int i = 0; i < COUNT; ++i) in[i] = 1.0f / (float)(i * i + 1);
    for (int order = 0; order < ORDERS; ++order) {
        int count = 0, largest = -1;
        sums[order] = 0;
        host_set_thread_order(order);
        assert_null(self_test_atomics(&sums[order], &count, &largest, in, BLOCKS));
        assert_int_equal(count, COUNT);
        assert_int_equal(largest, COUNT - 1);
        different += sums[order] != sums[0];
    }
    assert_true(different > 0); /* a kernel whose sums depend on the order is found out */
}

static void test_warp_operations(void **state) {
    (void)state;
    float in[32], sums[3], fifth;
    uint32_t ballot;
    for (int i = 0; i < 32; ++i) in[i] = (float)(3 * i + 1);
    for (int order = 0; order < ORDERS; ++order) {
        host_set_thread_order(order);
        assert_null(self_test_warp(sums, &ballot, &fifth, in));
        for (int i = 0; i < 3; ++i) assert_true(sums[i] == 3 * 496 + 32);
        assert_int_equal(ballot, 0xaaaaaaaau);
        assert_true(fifth == 16);
    }
}

static void fails_with(Status status, const char *text) {
    assert_non_null(status);
    if (!strstr(status_message(status), text)) fail_msg("\"%s\" does not say \"%s\"", status_message(status), text);
    status_free(status);
}

static void test_undefined_behaviour_is_an_error(void **state) {
    (void)state;
    for (int order = 0; order < ORDERS; ++order) {
        host_set_thread_order(order);
        fails_with(self_test_split_barrier(), "threads at different block barriers");
        fails_with(self_test_missing_lane(), "deadlock");
    }
    int stayed = 0;
    assert_null(self_test_early_return(&stayed));
    assert_int_equal(stayed, 40);
    assert_null(self_test_shared_memory(48 << 10, false));
    fails_with(self_test_shared_memory((48 << 10) + 4, false), "more than the kernel is allowed");
    assert_null(self_test_shared_memory(163 << 10, true));
    fails_with(self_test_shared_memory((163 << 10) + 4, true), "cudaErrorInvalidValue");
    host_set_capability(9);
    assert_null(self_test_shared_memory(227 << 10, true));
    host_set_capability(8);
#ifndef __SANITIZE_ADDRESS__ /* which would end the program at the access */
    fails_with(self_test_shared_overrun(), "a write beyond the 512 bytes");
#endif
}

static float bf16_value(uint16_t bits) {
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

static void test_tensor_core(void **state) {
    (void)state;
    uint16_t a[256], b[128];
    float d[128], expected[128];
    for (int order = 0; order < ORDERS; ++order) {
        for (int i = 0; i < 256; ++i) a[i] = (uint16_t)(0x3f00 + i * 37 % 251 + (i % 3 ? 0x8000 : 0));
        for (int i = 0; i < 128; ++i) b[i] = (uint16_t)(0x3e80 + i * 53 % 241 + (i % 5 ? 0 : 0x8000));
        for (int i = 0; i < 128; ++i) expected[i] = d[i] = (float)i * 0.25f;
        for (int m = 0; m < 16; ++m)
            for (int n = 0; n < 8; ++n) {
                double sum = (double)d[m * 8 + n];
                for (int k = 0; k < 16; ++k) sum += (double)bf16_value(a[m * 16 + k]) * (double)bf16_value(b[k * 8 + n]);
                expected[m * 8 + n] = (float)sum;
            }
        host_set_thread_order(order);
        assert_null(self_test_tensor_core(d, a, b));
        for (int i = 0; i < 128; ++i) assert_true(fabsf(d[i] - expected[i]) <= 1e-5f * fabsf(expected[i]) + 1e-6f);
    }
}

static void test_product_is_checked(void **state) {
    (void)state;
    float *a = NULL, *b = NULL, *c = NULL;
    assert_true(posix_memalign((void **)&a, 256, (64 * 32 + 1) * sizeof(float)) == 0);
    assert_true(posix_memalign((void **)&b, 256, 64 * 32 * sizeof(float)) == 0);
    assert_true(posix_memalign((void **)&c, 256, 64 * 64 * sizeof(float)) == 0);
    for (int i = 0; i < 64 * 32; ++i) a[i] = (float)(i % 7), b[i] = (float)(i % 5);
    assert_null(self_test_product(c, a, b, false, false));
    double expected = 0;
    for (int k = 0; k < 32; ++k) expected += (double)a[3 + 64 * k] * (double)b[k + 32 * 50];
    assert_true(c[3 + 64 * 50] == (float)expected);
    fails_with(self_test_product(c, a, b, true, false), "CUBLAS_STATUS_NOT_SUPPORTED");
    fails_with(self_test_product(c, a, b, false, true), "CUBLAS_STATUS_NOT_SUPPORTED");
    free(a);
    free(b);
    free(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_removed_barriers_show),
        cmocka_unit_test(test_shared_memory_is_poisoned),
        cmocka_unit_test(test_atomics),
        cmocka_unit_test(test_warp_operations),
        cmocka_unit_test(test_undefined_behaviour_is_an_error),
        cmocka_unit_test(test_tensor_core),
        cmocka_unit_test(test_product_is_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
