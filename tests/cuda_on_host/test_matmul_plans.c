/* The table of matmul plans, on two emulated GPUs whose libraries suggest different algorithms: the second must compute what
 * the first does once it has the first's table, for every number of tokens that was planned for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "io/log.h"
#include "kernels/matmul_plans.h"
#include "kernels/ops.h"

/* include/cublasLt.h */
void host_set_first_algorithm(int number);
void host_set_refused_algorithm(int number, int64_t n);
void host_set_slow_algorithm(int number);

enum { MOST = 40, N = 24, K = 48 };
static const MatmulTiming untimed = {NULL, 0, 0};

typedef struct Gpu {
    Device *device;
    Arena *arena;
    float *a, *b, *c; /* [MOST,K], [N,K], [MOST,N]; on the device, as the next */
    float *dy, *dw;   /* [MOST,N], [K,N] */
    const MatmulPlanning *planning;
} Gpu;

static void expect_ok(Status status) {
    if (status) fail_msg("%s", status_message(status));
}

static Gpu open_gpu(int first_algorithm) {
    Gpu gpu;
    host_set_first_algorithm(first_algorithm);
    expect_ok(device_open(BACKEND_CUDA, 0, 0, &gpu.device));
    expect_ok(arena_create(gpu.device, 1 << 22, &gpu.arena));
    void *memory[5];
    const size_t sizes[] = {MOST * K, N * K, MOST * N, MOST * N, K * N};
    for (int i = 0; i < 5; ++i) {
        expect_ok(device_allocate(gpu.device, sizes[i] * sizeof(float), &memory[i]));
        float *host = malloc(sizes[i] * sizeof *host);
        uint32_t random = 7u + (uint32_t)i;
        for (size_t e = 0; e < sizes[i]; ++e) {
            random = random * 1664525u + 1013904223u;
            host[e] = (float)(random >> 8) * 0x1p-23f - 1.0f;
        }
        expect_ok(device_upload(gpu.device, memory[i], host, sizes[i] * sizeof *host));
        expect_ok(device_synchronize(gpu.device));
        free(host);
    }
    gpu.a = memory[0], gpu.b = memory[1], gpu.c = memory[2], gpu.dy = memory[3], gpu.dw = memory[4];
    gpu.planning = matmul_planning(gpu.device);
    assert_non_null(gpu.planning);
    return gpu;
}

static void close_gpu(Gpu *gpu) {
    device_release(gpu->device, gpu->a);
    device_release(gpu->device, gpu->b);
    device_release(gpu->device, gpu->c);
    device_release(gpu->device, gpu->dy);
    device_release(gpu->device, gpu->dw);
    arena_destroy(gpu->arena);
    device_close(gpu->device);
    host_set_first_algorithm(-1);
}

/* The families of this test: forward with M = tokens, and a weight gradient with K = tokens. */
static void operands(const Gpu *gpu, bool gradient, int64_t tokens, Tensor *c, Tensor *a, Tensor *b) {
    *a = tensor_2d(gpu->a, DTYPE_F32, tokens, K);
    *b = gradient ? tensor_2d(gpu->dy, DTYPE_F32, tokens, N) : tensor_2d(gpu->b, DTYPE_F32, N, K);
    *c = gradient ? tensor_2d(gpu->dw, DTYPE_F32, K, N) : tensor_2d(gpu->c, DTYPE_F32, tokens, N);
}

static MatmulFamilies families(const Gpu *gpu) {
    MatmulFamilies list = {0};
    for (int gradient = 0; gradient < 2; ++gradient)
        for (int64_t tokens = 3; tokens <= MOST; tokens += MOST - 3) {
            Tensor c, a, b;
            MatmulShape shape;
            operands(gpu, gradient, tokens, &c, &a, &b);
            expect_ok(matmul_shape(&shape, c, a, K, gradient, b, !gradient, false));
            expect_ok(matmul_families_add(&list, shape));
        }
    assert_int_equal(list.count, 2);
    assert_int_equal(list.items[0].calls, 2);
    assert_int_equal(matmul_shape_tokens(&list.items[1].largest), MOST);
    return list;
}

/* FNV-1a of a product's bits. */
static uint64_t product(Gpu *gpu, bool gradient, int64_t tokens) {
    Tensor c, a, b;
    uint64_t hash = 14695981039346656037u;
    operands(gpu, gradient, tokens, &c, &a, &b);
    expect_ok(gpu->device->ops->matmul(gpu->device, gpu->arena, c, a, gradient, b, !gradient, tensor_absent(), 1, 0));
    unsigned char *host = malloc(tensor_bytes(c));
    expect_ok(device_download(gpu->device, host, c.data, tensor_bytes(c)));
    for (size_t i = 0; i < tensor_bytes(c); ++i) hash = (hash ^ host[i]) * 1099511628211u;
    free(host);
    return hash;
}

static Text table_of(Gpu *gpu) {
    Text text = {0};
    expect_ok(gpu->planning->write_table(gpu->device, &text));
    return text;
}

static void test_buckets(void **state) {
    (void)state;
    static const int64_t rows[][2] = {{1, 1},   {9, 9},   {16, 16},   {17, 18},     {18, 18},     {31, 32},          {33, 36},
                                      {64, 64}, {65, 72}, {100, 104}, {4096, 4096}, {4097, 4608}, {1000000, 1048576}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; ++i) assert_int_equal(matmul_bucket(rows[i][0]), rows[i][1]);
    for (int64_t bound = 1, next; bound < 100000; bound = next) {
        next = matmul_bucket(bound + 1);
        assert_true(next > bound && matmul_bucket(next) == next && (bound < 16 || 8 * (next - bound) <= bound));
    }
}

static void test_ranks_use_the_first_ones_choice(void **state) {
    (void)state;
    Gpu first = open_gpu(1), second = open_gpu(2);
    MatmulFamilies list = families(&first);
    MatmulCounts counts;
    int differing = 0;
    expect_ok(first.planning->choose(first.device, &list, untimed, &counts));
    assert_int_equal(counts.chosen, 2 * (16 + 8 + 2)); /* 1 ... 16, 18 ... 32, 36, 40 */
    assert_int_equal(counts.measured, 0);
    for (int64_t tokens = 1; tokens <= MOST; ++tokens)
        differing += product(&first, false, tokens) != product(&second, false, tokens);
    assert_true(differing > MOST / 2); /* else nothing below means anything */
    Text table = table_of(&first);
    expect_ok(second.planning->read_table(second.device, table.data, table.length));
    for (int64_t tokens = 1; tokens <= MOST; ++tokens)
        for (int gradient = 1; gradient >= 0; --gradient)
            if (product(&first, gradient, tokens) != product(&second, gradient, tokens))
                fail_msg("%d tokens%s: other bits", (int)tokens, gradient ? ", gradient" : "");
    /* Nothing was met that had no plan, and a second choice keeps what is there. */
    expect_ok(second.planning->choose(second.device, &list, untimed, &counts));
    assert_int_equal(counts.chosen, 0);
    Text after = table_of(&first);
    assert_int_equal(after.length, table.length);
    assert_memory_equal(after.data, table.data, table.length);
    text_free(&table);
    text_free(&after);
    matmul_families_free(&list);
    close_gpu(&first);
    close_gpu(&second);
}

/* What the bucket's algorithm cannot do goes to that of another bucket of the table, not to this rank's own suggestion. */
static void test_refused_size(void **state) {
    (void)state;
    Gpu first = open_gpu(1), second = open_gpu(0);
    MatmulFamilies list = families(&first);
    MatmulCounts counts;
    host_set_refused_algorithm(1, 32); /* so that the bucket of 32 gets algorithm 2, all others 1 */
    expect_ok(first.planning->choose(first.device, &list, untimed, &counts));
    Text table = table_of(&first);
    expect_ok(second.planning->read_table(second.device, table.data, table.length));
    const uint64_t by_second_algorithm = product(&first, false, 32);
    host_set_refused_algorithm(2, 31);
    const uint64_t replaced = product(&first, false, 31);
    assert_true(product(&second, false, 31) == replaced);
    host_set_refused_algorithm(-1, 0);
    Gpu other = open_gpu(1), own = open_gpu(0);
    assert_true(product(&other, false, 31) == replaced); /* algorithm 1, of the bucket of 36 */
    assert_true(product(&own, false, 31) != replaced);
    assert_true(product(&other, false, 32) != by_second_algorithm);
    text_free(&table);
    matmul_families_free(&list);
    close_gpu(&first);
    close_gpu(&second);
    close_gpu(&other);
    close_gpu(&own);
}

static void test_the_faster_one_is_chosen(void **state) {
    (void)state;
    Gpu measured = open_gpu(1), plain = open_gpu(1), fast = open_gpu(2);
    Tensor c, a, b;
    MatmulShape shape;
    MatmulFamilies list = {0};
    MatmulCounts counts;
    operands(&measured, false, MOST, &c, &a, &b);
    expect_ok(matmul_shape(&shape, c, a, K, false, b, true, false));
    expect_ok(matmul_families_add(&list, shape));
    host_set_slow_algorithm(1);
    expect_ok(measured.planning->choose(measured.device, &list, (MatmulTiming){measured.arena, 60, 2.0 * 30 * N * K}, &counts));
    host_set_slow_algorithm(-1);
    assert_int_equal(counts.measured, 4); /* buckets of 30, 32, 36, 40 */
    assert_int_equal(arena_used(measured.arena), 0);
    assert_true(product(&measured, false, MOST) != product(&plain, false, MOST));
    assert_true(product(&measured, false, 9) == product(&plain, false, 9));
    matmul_families_free(&list);
    close_gpu(&measured);
    close_gpu(&plain);
    close_gpu(&fast);
}

static void expect_refused(Gpu *gpu, const char *bytes, size_t length) {
    Status status = gpu->planning->read_table(gpu->device, bytes, length);
    assert_int_equal(status_exit_code(status), STATUS_INVALID);
    status_free(status);
}

static void test_broken_tables(void **state) {
    (void)state;
    Gpu first = open_gpu(1), second = open_gpu(2);
    MatmulFamilies list = families(&first);
    MatmulCounts counts;
    expect_ok(first.planning->choose(first.device, &list, untimed, &counts));
    Text table = table_of(&first), before = table_of(&second);
    expect_refused(&second, table.data, 0);
    expect_refused(&second, table.data, 15);
    expect_refused(&second, table.data, table.length - 1);
    table.data[0] ^= 8; /* size of a record */
    expect_refused(&second, table.data, table.length);
    table.data[0] ^= 8;
    table.data[16 + 7] ^= (char)0x80; /* a negative size in the first record */
    expect_refused(&second, table.data, table.length);
    Text after = table_of(&second);
    assert_int_equal(after.length, before.length);
    text_free(&table);
    text_free(&before);
    text_free(&after);
    matmul_families_free(&list);
    close_gpu(&first);
    close_gpu(&second);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buckets),       cmocka_unit_test(test_ranks_use_the_first_ones_choice),
        cmocka_unit_test(test_refused_size),  cmocka_unit_test(test_the_faster_one_is_chosen),
        cmocka_unit_test(test_broken_tables),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
