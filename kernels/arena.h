/* Arena: one block of device memory, parcelled out to activations, gradients and scratch.
 *
 * Activations are taken from the low end and gradients and scratch from the high end, each first-fit with merging of
 * freed neighbours, so that the sequence of addresses is a pure function of the sequence of calls: after the first step
 * nothing is allocated, and a step run on the planning device yields the exact peak. Not thread-safe. */
#ifndef KERNELS_ARENA_H
#define KERNELS_ARENA_H

#include "kernels/device.h"

typedef struct Arena Arena;
typedef enum ArenaSide { ARENA_LOW, ARENA_HIGH } ArenaSide;

/* capacity in bytes. On the CPU and the planner the range is reserved address space; pages are used when touched. */
Status arena_create(Device *device, size_t capacity, Arena **out);
void arena_destroy(Arena *arena);
/* 256-byte aligned. STATUS_FAILED "out of memory" names capacity, use and request, and the keys to lower. */
Status arena_allocate(Arena *arena, size_t bytes, ArenaSide side, void **out);
void arena_release(Arena *arena, void *data); /* NULL allowed */
size_t arena_capacity(const Arena *arena);
size_t arena_used(const Arena *arena);
size_t arena_peak(const Arena *arena); /* largest sum of both sides' extents so far */
void arena_reset_peak(Arena *arena);
Device *arena_device(const Arena *arena);

#endif
