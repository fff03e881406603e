/* Each side is a row of blocks counted from its own end of the range, so that one code serves both and an address relative
 * to its end never depends on the capacity. The row ends with a used block: trailing free space belongs to the gap. */
#include "kernels/arena.h"

#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 256 };

typedef struct Block {
    size_t offset, bytes;
    bool used;
} Block;

typedef struct Side {
    Block *blocks; /* sorted by offset, covering 0..extent without gaps; free neighbours are merged */
    size_t count, room;
    size_t extent;
} Side;

struct Arena {
    Device *device;
    char *base;
    size_t capacity, used, peak;
    Side sides[2];
};

Status arena_create(Device *device, size_t capacity, Arena **out) {
    Arena *arena = calloc(1, sizeof *arena);
    TRY_ALLOC(arena);
    arena->device = device;
    arena->capacity = capacity / ALIGNMENT * ALIGNMENT;
    void *base = NULL;
    Status status = device_allocate(device, arena->capacity, &base);
    if (status) {
        free(arena);
        return status_prefix(status, "arena");
    }
    arena->base = base;
    *out = arena;
    return STATUS_OK;
}

void arena_destroy(Arena *arena) {
    if (!arena) return;
    device_release(arena->device, arena->base);
    for (int s = 0; s < 2; ++s) free(arena->sides[s].blocks);
    free(arena);
}

static void *address(const Arena *arena, ArenaSide side, const Block *block) {
    if (side == ARENA_LOW) return arena->base + block->offset;
    return arena->base + arena->capacity - block->offset - block->bytes;
}

static Status insert_block(Side *side, size_t index, Block block) {
    if (side->count == side->room) {
        size_t room = side->room ? 2 * side->room : 64;
        Block *blocks = realloc(side->blocks, room * sizeof *blocks);
        TRY_ALLOC(blocks);
        side->blocks = blocks;
        side->room = room;
    }
    memmove(side->blocks + index + 1, side->blocks + index, (side->count - index) * sizeof *side->blocks);
    side->blocks[index] = block;
    ++side->count;
    return STATUS_OK;
}

static void remove_block(Side *side, size_t index) {
    memmove(side->blocks + index, side->blocks + index + 1, (side->count - index - 1) * sizeof *side->blocks);
    --side->count;
}

static Status out_of_memory(const Arena *arena, size_t bytes) {
    size_t extents = arena->sides[0].extent + arena->sides[1].extent;
    FAIL("out of memory: the arena of %.3f GB has %.3f GB in use (%.3f GB lost to holes) and cannot take %.3f GB more; lower "
         "training.per_device_train_batch_size, training.max_tokens_per_micro_batch or data.max_length, or set "
         "training.gradient_checkpointing",
         (double)arena->capacity / 1e9, (double)arena->used / 1e9, (double)(extents - arena->used) / 1e9, (double)bytes / 1e9);
}

Status arena_allocate(Arena *arena, size_t bytes, ArenaSide which, void **out) {
    Side *side = &arena->sides[which];
    if (bytes > arena->capacity) return out_of_memory(arena, bytes);
    size_t rounded = bytes ? (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT : ALIGNMENT;
    size_t i = 0;
    while (i < side->count && (side->blocks[i].used || side->blocks[i].bytes < rounded)) ++i;
    if (i < side->count) {
        Block rest = {side->blocks[i].offset + rounded, side->blocks[i].bytes - rounded, false};
        if (rest.bytes) TRY(insert_block(side, i + 1, rest));
        side->blocks[i].bytes = rounded;
        side->blocks[i].used = true;
    } else {
        size_t extents = arena->sides[0].extent + arena->sides[1].extent;
        if (rounded > arena->capacity - extents) return out_of_memory(arena, bytes);
        TRY(insert_block(side, i, (Block){side->extent, rounded, true}));
        side->extent += rounded;
        if (extents + rounded > arena->peak) arena->peak = extents + rounded;
    }
    arena->used += rounded;
    *out = address(arena, which, &side->blocks[i]);
    return STATUS_OK;
}

/* Newest first: activations and scratch are released in reverse order of their allocation. */
static Block *find_block(Arena *arena, const void *data, Side **side) {
    for (int s = 0; s < 2; ++s) {
        *side = &arena->sides[s];
        for (size_t i = (*side)->count; i-- > 0;) {
            Block *block = &(*side)->blocks[i];
            if (block->used && address(arena, (ArenaSide)s, block) == data) return block;
        }
    }
    return NULL;
}

void arena_release(Arena *arena, void *data) {
    if (!data) return;
    Side *side;
    Block *block = find_block(arena, data, &side);
    if (!block) abort(); /* released twice, or never allocated here: a programmer error that would corrupt activations */
    arena->used -= block->bytes;
    block->used = false;
    size_t i = (size_t)(block - side->blocks);
    if (i + 1 < side->count && !side->blocks[i + 1].used) {
        side->blocks[i].bytes += side->blocks[i + 1].bytes;
        remove_block(side, i + 1);
    }
    if (i > 0 && !side->blocks[i - 1].used) {
        side->blocks[i - 1].bytes += side->blocks[i].bytes;
        remove_block(side, i);
        --i;
    }
    if (i + 1 == side->count) {
        side->extent = side->blocks[i].offset;
        --side->count;
    }
}

size_t arena_capacity(const Arena *arena) { return arena->capacity; }
size_t arena_used(const Arena *arena) { return arena->used; }
size_t arena_peak(const Arena *arena) { return arena->peak; }
void arena_reset_peak(Arena *arena) { arena->peak = arena->sides[0].extent + arena->sides[1].extent; }
Device *arena_device(const Arena *arena) { return arena->device; }
