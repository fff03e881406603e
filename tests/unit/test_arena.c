#include "kernels/arena.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdint.h>
#include <string.h>

enum { CAPACITY = 1 << 20 };

typedef struct Fixture {
    Device *device;
    Arena *arena;
} Fixture;

static int setup(void **state) {
    static Fixture fixture;
    assert_null(device_open(BACKEND_CPU, 0, 1, &fixture.device));
    assert_null(arena_create(fixture.device, CAPACITY, &fixture.arena));
    *state = &fixture;
    return 0;
}

static int teardown(void **state) {
    Fixture *f = *state;
    arena_destroy(f->arena);
    device_close(f->device);
    return 0;
}

static char *take(Arena *arena, size_t bytes, ArenaSide side) {
    void *data = NULL;
    Status status = arena_allocate(arena, bytes, side, &data);
    if (status) fail_msg("%s", status_message(status));
    assert_int_equal((uintptr_t)data % 256, 0);
    memset(data, 1, bytes);
    return data;
}

static void both_sides_grow_towards_each_other(void **state) {
    Arena *arena = ((Fixture *)*state)->arena;
    char *low1 = take(arena, 1000, ARENA_LOW), *low2 = take(arena, 256, ARENA_LOW);
    char *high1 = take(arena, 100, ARENA_HIGH), *high2 = take(arena, 300, ARENA_HIGH);
    assert_ptr_equal(low2, low1 + 1024);
    assert_ptr_equal(high1, low1 + CAPACITY - 256);
    assert_ptr_equal(high2, high1 - 512);
    assert_int_equal(arena_used(arena), 1024 + 256 + 256 + 512);
    assert_int_equal(arena_peak(arena), arena_used(arena));
    arena_release(arena, low1);
    arena_release(arena, NULL);
    assert_int_equal(arena_used(arena), 256 + 256 + 512);
    arena_release(arena, high2);
    arena_release(arena, low2);
    arena_release(arena, high1);
    assert_int_equal(arena_used(arena), 0);
    assert_int_equal(arena_peak(arena), 2048);
    arena_reset_peak(arena);
    assert_int_equal(arena_peak(arena), 0);
}

static void first_hole_that_fits_is_taken_and_neighbours_merge(void **state) {
    Arena *arena = ((Fixture *)*state)->arena;
    char *blocks[6];
    for (int i = 0; i < 6; ++i) blocks[i] = take(arena, 512, ARENA_LOW);
    arena_release(arena, blocks[1]);
    arena_release(arena, blocks[3]);
    char *small = take(arena, 256, ARENA_LOW); /* the front of the first hole */
    assert_ptr_equal(small, blocks[1]);
    arena_release(arena, blocks[2]); /* joins the rest of hole 1, block 2 and hole 3 */
    char *joined = take(arena, 256 + 512 + 512, ARENA_LOW);
    assert_ptr_equal(joined, blocks[1] + 256);
    assert_int_equal(arena_peak(arena), 6 * 512);
    arena_release(arena, blocks[5]); /* the free tail belongs to the gap again */
    arena_release(arena, blocks[4]);
    arena_reset_peak(arena);
    assert_int_equal(arena_peak(arena), 4 * 512);
    arena_release(arena, joined);
    arena_release(arena, small);
    arena_release(arena, blocks[0]);
    assert_int_equal(arena_used(arena), 0);
}

static void peak_counts_extents_with_their_holes(void **state) {
    Arena *arena = ((Fixture *)*state)->arena;
    char *a = take(arena, 4096, ARENA_HIGH), *b = take(arena, 256, ARENA_HIGH);
    arena_release(arena, a); /* a hole behind b */
    arena_reset_peak(arena);
    assert_int_equal(arena_used(arena), 256);
    assert_int_equal(arena_peak(arena), 4096 + 256);
    char *c = take(arena, 8192, ARENA_LOW);
    assert_int_equal(arena_peak(arena), 4096 + 256 + 8192);
    arena_release(arena, b);
    arena_release(arena, c);
}

static void running_out_names_the_keys_to_lower(void **state) {
    Arena *arena = ((Fixture *)*state)->arena;
    char *most = take(arena, CAPACITY - 256, ARENA_LOW);
    void *data = NULL;
    Status status = arena_allocate(arena, 257, ARENA_HIGH, &data);
    assert_int_equal(status_exit_code(status), STATUS_FAILED);
    assert_non_null(strstr(status_message(status), "out of memory"));
    assert_non_null(strstr(status_message(status), "max_tokens_per_micro_batch"));
    status_free(status);
    status = arena_allocate(arena, SIZE_MAX - 10, ARENA_LOW, &data);
    assert_int_equal(status_exit_code(status), STATUS_FAILED);
    status_free(status);
    char *last = take(arena, 256, ARENA_HIGH); /* exactly full */
    assert_int_equal(arena_used(arena), CAPACITY);
    arena_release(arena, last);
    arena_release(arena, most);
}

/* The same calls give the same offsets from each end, whatever the capacity and the backend. */
static uint64_t replay(BackendKind kind, size_t capacity, size_t *peak) {
    Device *device;
    Arena *arena;
    assert_null(device_open(kind, 0, 1, &device));
    assert_null(arena_create(device, capacity, &arena));
    void *live[64] = {NULL}, *base;
    ArenaSide sides[64];
    assert_null(arena_allocate(arena, 256, ARENA_LOW, &base));
    uint64_t random = 7, hash = 0;
    for (int step = 0; step < 5000; ++step) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        int slot = (int)(random >> 33) % 64;
        if (live[slot]) {
            arena_release(arena, live[slot]);
            live[slot] = NULL;
            continue;
        }
        size_t bytes = (size_t)(random >> 40) % 20000;
        sides[slot] = random >> 63 ? ARENA_HIGH : ARENA_LOW;
        assert_null(arena_allocate(arena, bytes, sides[slot], &live[slot]));
        size_t offset = (size_t)((char *)live[slot] - (char *)base);
        if (sides[slot] == ARENA_HIGH) offset = capacity - offset;
        hash = (hash ^ offset) * 1099511628211u;
    }
    *peak = arena_peak(arena);
    for (int i = 0; i < 64; ++i) arena_release(arena, live[i]);
    arena_release(arena, base);
    assert_int_equal(arena_used(arena), 0);
    arena_destroy(arena);
    device_close(device);
    return hash;
}

static void addresses_are_a_function_of_the_calls(void **state) {
    (void)state;
    size_t peak, other;
    uint64_t hash = replay(BACKEND_CPU, (size_t)4 << 20, &peak);
    assert_true(replay(BACKEND_CPU, (size_t)64 << 20, &other) == hash);
    assert_int_equal(other, peak);
    assert_true(replay(BACKEND_PLAN, (size_t)1 << 40, &other) == hash); /* a terabyte of plan costs nothing */
    assert_int_equal(other, peak);
    assert_true(replay(BACKEND_CPU, peak / 256 * 256, &other) == hash); /* the peak is all that is needed */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(both_sides_grow_towards_each_other, setup, teardown),
        cmocka_unit_test_setup_teardown(first_hole_that_fits_is_taken_and_neighbours_merge, setup, teardown),
        cmocka_unit_test_setup_teardown(peak_counts_extents_with_their_holes, setup, teardown),
        cmocka_unit_test_setup_teardown(running_out_names_the_keys_to_lower, setup, teardown),
        cmocka_unit_test(addresses_are_a_function_of_the_calls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
