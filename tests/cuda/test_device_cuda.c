/* The CUDA device: memory on a GPU; without one, errors that say so. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "kernels/device.h"

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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_available_or_says_why),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_out_of_memory_names_the_sizes),
        cmocka_unit_test(test_rank_beyond_the_gpus_wraps_around),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
