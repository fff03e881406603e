#include "kernels/arena.h"
#include "kernels/device.h"
#include "kernels/ops.h"
#include "kernels/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static void cpu_memory_holds_what_was_uploaded(void **state) {
    (void)state;
    Device *device;
    assert_null(device_open(BACKEND_CPU, 0, 3, &device));
    assert_int_equal(device->threads, 3);
    assert_true(device_is_host(device));
    assert_non_null(strstr(device->name, "3 threads"));
    assert_string_equal(device->ops->name, "cpu");
    enum { COUNT = 3000 };
    static char host[COUNT], back[COUNT];
    for (int i = 0; i < COUNT; ++i) host[i] = (char)(i * 7);
    void *a, *b, *none;
    assert_null(device_allocate(device, COUNT, &a));
    assert_null(device_allocate(device, COUNT, &b));
    assert_null(device_allocate(device, 0, &none));
    assert_non_null(none);
    assert_int_equal((uintptr_t)a % 64, 0);
    assert_null(device_upload(device, a, host, COUNT));
    assert_null(device_copy(device, b, a, COUNT));
    assert_null(device_fill_zero(device, a, COUNT / 2));
    assert_null(device_synchronize(device));
    assert_null(device_download(device, back, b, COUNT));
    assert_memory_equal(back, host, COUNT);
    assert_null(device_download(device, back, a, COUNT));
    for (int i = 0; i < COUNT / 2; ++i) assert_int_equal(back[i], 0);
    assert_memory_equal(back + COUNT / 2, host + COUNT / 2, COUNT / 2);
    assert_null(device_upload(device, NULL, NULL, 0));
    device_release(device, a);
    device_release(device, b);
    device_release(device, none);
    device_release(device, NULL);
    device_close(device);
    device_close(NULL);
}

static void zero_threads_means_all(void **state) {
    (void)state;
    Device *device;
    assert_null(device_open(BACKEND_CPU, 0, 0, &device));
    assert_true(device->threads >= 1);
    device_close(device);
}

static void impossible_requests_fail(void **state) {
    (void)state;
    Device *device;
    void *data;
    assert_null(device_open(BACKEND_CPU, 0, 1, &device));
    Status status = device_allocate(device, SIZE_MAX - 5, &data);
    assert_int_equal(status_exit_code(status), STATUS_FAILED);
    status_free(status);
    status = device_allocate(device, (size_t)1 << 60, &data);
    assert_int_equal(status_exit_code(status), STATUS_FAILED);
    status_free(status);
    device_close(device);
}

static void cuda_explains_its_absence(void **state) {
    (void)state;
    const char *why = NULL;
    if (device_cuda_available(&why)) skip();
    assert_true(strlen(why) > 10);
    Device *device;
    Status status = device_open(BACKEND_CUDA, 0, 0, &device);
    assert_int_equal(status_exit_code(status), STATUS_FAILED);
    assert_non_null(strstr(status_message(status), why));
    status_free(status);
}

/* One engine there: asking for a GPU's is an error of the input. */
static void attention_on_a_cpu_is_plain(void **state) {
    (void)state;
    Device *device;
    assert_null(device_open(BACKEND_CPU, 0, 1, &device));
    for (AttentionEngine engine = ATTENTION_AUTO; engine <= ATTENTION_PLAIN; ++engine) {
        Status status = device_set_attention(device, engine);
        const bool known = engine == ATTENTION_AUTO || engine == ATTENTION_PLAIN;
        assert_int_equal(status_exit_code(status), known ? 0 : STATUS_INVALID);
        if (!known) assert_non_null(strstr(status_message(status), "needs a GPU"));
        status_free(status);
        assert_int_equal(device->cudnn, CUDNN_NO_PASS);
    }
    device_close(device);
}

/* Where cuDNN may run, a planner counts its scratch: of bf16 and its head dimensions only. */
static void cudnn_scratch_is_planned(void **state) {
    (void)state;
    Device *device;
    assert_null(device_open_planner(BACKEND_CUDA, (int64_t)80 << 30, &device));
    const SequenceLayout layout = {.tokens = 1000, .sequences = 2, .longest = 600};
    const AttentionShape shape = {16, 2, 128, 1, true}, other = {16, 2, 96, 1, true};
    const size_t own = scratch_attention_backward(device, DTYPE_BF16, &layout, shape);
    assert_int_equal(scratch_attention_forward(device, DTYPE_BF16, &layout, shape), 0);
    assert_int_equal(own, 1000 * 16 * sizeof(float));
    device->cudnn = CUDNN_FORWARD_PASS;
    assert_true(scratch_attention_forward(device, DTYPE_BF16, &layout, shape) >= own + (1 << 20));
    assert_int_equal(scratch_attention_backward(device, DTYPE_BF16, &layout, shape), own);
    device->cudnn = CUDNN_BOTH_PASSES;
    assert_true(scratch_attention_backward(device, DTYPE_BF16, &layout, shape) >= own * (2 + 3 * 128) + 1000 * 16 * 2048);
    assert_int_equal(scratch_attention_backward(device, DTYPE_F32, &layout, shape), own);
    assert_int_equal(scratch_attention_backward(device, DTYPE_BF16, &layout, other), own);
    device_close(device);
}

/* The planner touches no memory, computes nothing, and still meets the peak of the real op. */
static void planner_takes_the_scratch_of_the_real_ops(void **state) {
    (void)state;
    enum { T = 40, V = 300, D = 16, H = 2, E = 16 };
    BackendKind kinds[] = {BACKEND_CPU, BACKEND_PLAN};
    size_t peaks[2][4];
    for (int i = 0; i < 2; ++i) {
        Device *device;
        Arena *arena;
        assert_null(device_open(kinds[i], 0, 2, &device));
        assert_int_equal(device_is_host(device), kinds[i] == BACKEND_CPU);
        assert_null(arena_create(device, (size_t)16 << 20, &arena));
        const Ops *ops = device->ops;
        void *x, *w, *f, *n;
        assert_null(device_allocate(device, sizeof(float) * T * V * D, &x));
        assert_null(device_allocate(device, sizeof(float) * V * D, &w));
        assert_null(device_allocate(device, sizeof(float) * T * V, &f));
        assert_null(device_allocate(device, sizeof(float) * T * D, &n));
        int32_t offsets[2] = {0, T}, host_rows[T];
        for (int r = 0; r < T; ++r) host_rows[r] = r;
        assert_null(device_fill_zero(device, x, sizeof(float) * T * D));
        assert_null(device_fill_zero(device, w, sizeof(float) * V * D));
        assert_null(device_upload(device, n, host_rows, sizeof host_rows));
        Tensor hidden = tensor_2d(x, DTYPE_F32, T, D), weight = tensor_2d(w, DTYPE_F32, V, D), rows = tensor_1d(n, DTYPE_I32, T);
        assert_null(ops->linear_cross_entropy(device, arena, tensor_1d(f, DTYPE_F32, T), tensor_absent(), tensor_absent(), hidden,
                                              weight, rows, rows, &(CrossEntropySettings){.scale = 1.0f}));
        peaks[i][0] = arena_peak(arena);
        arena_reset_peak(arena);
        Tensor vector = tensor_1d(f, DTYPE_F32, D), rstd = tensor_1d(w, DTYPE_F32, T);
        assert_null(ops->rms_norm_backward(device, arena, hidden, false, vector, hidden, hidden, vector, rstd));
        peaks[i][1] = arena_peak(arena);
        arena_reset_peak(arena);
        assert_null(ops->sum_squares(device, arena, tensor_1d(f, DTYPE_F64, 1), tensor_1d(x, DTYPE_F32, T * D)));
        peaks[i][2] = arena_peak(arena);
        arena_reset_peak(arena);
        SequenceLayout layout = {.tokens = T, .sequences = 1, .longest = T, .offsets = n, .host_offsets = offsets};
        AttentionShape shape = {.query_heads = 1, .key_heads = 1, .head_dimension = E, .scale = 1.0f, .causal = true};
        Tensor q = tensor_3d(x, DTYPE_F32, T, 1, E), lse = tensor_2d(f, DTYPE_F32, 1, T);
        void *g;
        assert_null(device_allocate(device, 3 * sizeof(float) * T * E, &g));
        Tensor dq = tensor_3d(g, DTYPE_F32, T, 1, E);
        Tensor dk = tensor_3d((char *)g + sizeof(float) * T * E, DTYPE_F32, T, 1, E);
        Tensor dv = tensor_3d((char *)g + 2 * sizeof(float) * T * E, DTYPE_F32, T, 1, E);
        assert_null(ops->attention_backward(device, arena, dq, dk, dv, q, q, lse, q, q, q, &layout, shape));
        peaks[i][3] = arena_peak(arena);
        assert_int_equal(arena_used(arena), 0);
        device_release(device, g);
        device_release(device, x);
        device_release(device, w);
        device_release(device, f);
        device_release(device, n);
        arena_destroy(arena);
        device_close(device);
    }
    for (int j = 0; j < 4; ++j) {
        assert_true(peaks[0][j] > 0);
        assert_int_equal(peaks[0][j], peaks[1][j]);
    }
}

static void planner_downloads_zeros(void **state) {
    (void)state;
    Device *device;
    void *data;
    assert_null(device_open(BACKEND_PLAN, 0, 0, &device));
    assert_null(device_allocate(device, (size_t)1 << 42, &data)); /* 4 TB */
    unsigned char back[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    assert_null(device_upload(device, data, back, sizeof back));
    assert_null(device_fill_zero(device, data, (size_t)1 << 42));
    assert_null(device_download(device, back, data, sizeof back));
    for (int i = 0; i < 8; ++i) assert_int_equal(back[i], 0);
    device_release(device, data);
    device_close(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cpu_memory_holds_what_was_uploaded),
        cmocka_unit_test(zero_threads_means_all),
        cmocka_unit_test(impossible_requests_fail),
        cmocka_unit_test(cuda_explains_its_absence),
        cmocka_unit_test(planner_takes_the_scratch_of_the_real_ops),
        cmocka_unit_test(planner_downloads_zeros),
        cmocka_unit_test(attention_on_a_cpu_is_plain),
        cmocka_unit_test(cudnn_scratch_is_planned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
