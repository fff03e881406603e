/* The CUDA device: memory on a GPU; without one, errors that say so. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "kernels/device.h"
#include "kernels/staging.h"

static void test_available_or_says_why(void **state) {
    (void)state;
    const char *why = NULL;
    if (device_cuda_available(&why)) {
        Device *device = NULL;
        Status status = device_open(BACKEND_CUDA, 0, 0, &device);
        assert_null(status);
        assert_non_null(device->ops);
        assert_false(device_is_host(device));
        print_message("GPU: %s\n", device->name);
        device_close(device);
        return;
    }
    assert_non_null(why);
    assert_true(strlen(why) > 10);
    print_message("no GPU: %s\n", why);
    Device *device = NULL;
    Status status = device_open(BACKEND_CUDA, 0, 0, &device);
    assert_non_null(status);
    assert_null(device);
    assert_int_equal(status_exit_code(status), 1);
    assert_non_null(strstr(status_message(status), why));
    status_free(status);
}

static Device *open_or_skip(void) {
    const char *why;
    if (!device_cuda_available(&why)) skip();
    Device *device = NULL;
    assert_null(device_open(BACKEND_CUDA, 0, 0, &device));
    return device;
}

static void test_memory(void **state) {
    (void)state;
    Device *device = open_or_skip();
    enum { BYTES = 100001 };
    unsigned char *sent = malloc(BYTES), *received = malloc(BYTES);
    for (int i = 0; i < BYTES; ++i) sent[i] = (unsigned char)(i * 7 + 1);
    void *first, *second;
    assert_null(device_allocate(device, BYTES, &first));
    assert_null(device_allocate(device, BYTES, &second));
    assert_int_equal((size_t)first % 256, 0);
    assert_null(device_upload(device, first, sent, BYTES));
    assert_null(device_copy(device, second, first, BYTES));
    assert_null(device_fill_zero(device, first, BYTES));
    assert_null(device_download(device, received, second, BYTES));
    assert_memory_equal(sent, received, BYTES);
    assert_null(device_download(device, received, first, BYTES));
    for (int i = 0; i < BYTES; ++i) assert_int_equal(received[i], 0);
    device_release(device, first);
    device_release(device, second);
    assert_null(device_synchronize(device));
    device_close(device);
    free(sent);
    free(received);
}

static void test_out_of_memory_names_the_sizes(void **state) {
    (void)state;
    Device *device = open_or_skip();
    void *data = NULL;
    Status status = device_allocate(device, (size_t)1 << 50, &data);
    assert_non_null(status);
    assert_non_null(strstr(status_message(status), "out of GPU memory: 1073741824.0 MiB asked for"));
    status_free(status);
    assert_null(device_allocate(device, 1 << 20, &data)); /* the device still works */
    device_release(device, data);
    device_close(device);
}

static void test_rank_beyond_the_gpus_wraps_around(void **state) {
    (void)state;
    Device *first = open_or_skip(), *second = NULL;
    assert_null(device_open(BACKEND_CUDA, 840, 0, &second)); /* a multiple of 1 to 8 GPUs */
    assert_string_equal(first->name, second->name);
    device_close(second);
    device_close(first);
}

/* Pieces of every kind: several whole ones, a last short one, one alone; ready for work that is issued after finish. */
static void test_staged_uploads(void **state) {
    (void)state;
    static const size_t sizes[] = {1, 4097, ((size_t)16 << 20), ((size_t)40 << 20) + 13};
    Device *device = open_or_skip();
    Staging *staging;
    unsigned char *sent = malloc(sizes[3]), *received = malloc(sizes[3]);
    void *first[4], *second[4];
    assert_true(sent && received);
    for (size_t i = 0; i < sizes[3]; ++i) sent[i] = (unsigned char)(i * 31 + (i >> 16));
    assert_null(staging_create(device, &staging));
    for (int i = 0; i < 4; ++i) {
        assert_null(device_allocate(device, sizes[i], &first[i]));
        assert_null(device_allocate(device, sizes[i], &second[i]));
        assert_null(staging_upload(staging, first[i], sent + i, sizes[i] - (size_t)i));
    }
    assert_null(staging_finish(staging));
    for (int i = 0; i < 4; ++i) assert_null(device_copy(device, second[i], first[i], sizes[i] - (size_t)i));
    staging_destroy(staging);
    for (int i = 0; i < 4; ++i) {
        memset(received, 0, sizes[i]);
        assert_null(device_download(device, received, second[i], sizes[i] - (size_t)i));
        assert_memory_equal(received, sent + i, sizes[i] - (size_t)i);
        device_release(device, first[i]);
        device_release(device, second[i]);
    }
    device_close(device);
    free(sent);
    free(received);
}

/* Two slots take turns, as batches do: uploads beside the work, each waiting for what reads the slot, and the reverse. */
static void test_events_order_the_queues(void **state) {
    (void)state;
    enum { COUNT = 50000, ROUNDS = 9 };
    Device *device = open_or_skip();
    DeviceEvent *uploaded[2], *used[2];
    int *pinned[2], *results;
    void *slot[2], *kept;
    assert_null(device_allocate(device, sizeof(int) * COUNT * ROUNDS, &kept));
    assert_null(device_allocate_pinned(device, sizeof(int) * COUNT * ROUNDS, (void **)&results));
    for (int i = 0; i < 2; ++i) {
        assert_null(device_event_create(device, &uploaded[i]));
        assert_null(device_event_create(device, &used[i]));
        assert_null(device_allocate(device, sizeof(int) * COUNT, &slot[i]));
        assert_null(device_allocate_pinned(device, sizeof(int) * COUNT, (void **)&pinned[i]));
    }
    for (int round = 0; round < ROUNDS; ++round) {
        int i = round % 2;
        assert_null(device_event_wait(device, uploaded[i]));
        for (int k = 0; k < COUNT; ++k) pinned[i][k] = round * 1000003 + k;
        assert_null(device_queue_wait(device, DEVICE_UPLOADS, used[i]));
        assert_null(device_upload_beside(device, slot[i], pinned[i], sizeof(int) * COUNT));
        assert_null(device_event_mark(device, DEVICE_UPLOADS, uploaded[i]));
        assert_null(device_queue_wait(device, DEVICE_WORK, uploaded[i]));
        assert_null(device_copy(device, (int *)kept + (size_t)round * COUNT, slot[i], sizeof(int) * COUNT));
        assert_null(device_event_mark(device, DEVICE_WORK, used[i]));
    }
    assert_null(device_download_later(device, results, kept, sizeof(int) * COUNT * ROUNDS));
    assert_null(device_event_mark(device, DEVICE_WORK, used[0]));
    assert_null(device_event_wait(device, used[0]));
    for (int round = 0; round < ROUNDS; ++round)
        for (int k = 0; k < COUNT; ++k) assert_int_equal(results[(size_t)round * COUNT + (size_t)k], round * 1000003 + k);
    for (int i = 0; i < 2; ++i) {
        device_event_destroy(device, uploaded[i]);
        device_event_destroy(device, used[i]);
        device_release(device, slot[i]);
        device_release_pinned(device, pinned[i]);
    }
    device_release(device, kept);
    device_release_pinned(device, results);
    device_close(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_available_or_says_why),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_out_of_memory_names_the_sizes),
        cmocka_unit_test(test_rank_beyond_the_gpus_wraps_around),
        cmocka_unit_test(test_staged_uploads),
        cmocka_unit_test(test_events_order_the_queues),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
