#include "model/memory_projection.h"

#define PREFIX "memory.projection"

Status memory_projection_add(const AdamemConfig *config, int64_t decoder_width, const MemoryStore *store, MemoryProjection *out) {
    bool mlp = config->projection == ADAMEM_MLP;
    const char *first = mlp ? PREFIX ".fc1" : PREFIX ".linear";
    *out = (MemoryProjection){.scale = NULL};
    TRY(memory_add(store, first, "weight", decoder_width, config->hidden_size, &out->first.weight));
    TRY(memory_add(store, first, "bias", 0, decoder_width, &out->first.bias));
    if (mlp) {
        TRY(memory_add(store, PREFIX ".fc2", "weight", decoder_width, decoder_width, &out->second.weight));
        TRY(memory_add(store, PREFIX ".fc2", "bias", 0, decoder_width, &out->second.bias));
    }
    return memory_add(store, PREFIX, "scale", 0, 1, &out->scale);
}

Status memory_projection_unscaled(const MemoryProjection *projection, Tape *tape, Value *z, Value **out) {
    Value *wide, *activated;
    if (!projection->second.weight) return memory_linear(tape, z, &projection->first, out);
    TRY(memory_linear(tape, z, &projection->first, &wide));
    TRY(layer_gelu(tape, wide, &activated));
    tape_done(tape, wide);
    TRY(memory_linear(tape, activated, &projection->second, out));
    tape_done(tape, activated);
    return STATUS_OK;
}

Status memory_projection_forward(const MemoryProjection *projection, Tape *tape, Value *z, Value **e) {
    Value *unscaled;
    TRY(memory_projection_unscaled(projection, tape, z, &unscaled));
    TRY(layer_scale(tape, unscaled, projection->scale, e));
    tape_done(tape, unscaled);
    return STATUS_OK;
}
