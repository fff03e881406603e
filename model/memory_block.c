#include "model/memory_block.h"

#include <math.h>

Status memory_add(const MemoryStore *store, const char *prefix, const char *name, int64_t rows, int64_t columns,
                  Parameter **out) {
    char full[192];
    snprintf(full, sizeof full, "%s.%s", prefix, name);
    int64_t shape[2] = {rows ? rows : columns, columns};
    return parameters_add(store->parameters, full, rows ? 2 : 1, shape, store->trainable, rows > 0, out);
}

Status memory_attention_add(const MemoryStore *store, const char *prefix, int64_t width, MemoryAttention *out) {
    TRY(memory_add(store, prefix, "q_proj.weight", width, width, &out->q.weight));
    TRY(memory_add(store, prefix, "k_proj.weight", width, width, &out->k.weight));
    TRY(memory_add(store, prefix, "v_proj.weight", width, width, &out->v.weight));
    return memory_add(store, prefix, "o_proj.weight", width, width, &out->o.weight);
}

Status memory_mlp_add(const MemoryStore *store, const char *prefix, int64_t width, MemoryMlp *out) {
    TRY(memory_add(store, prefix, "up_proj.weight", 4 * width, width, &out->up.weight));
    return memory_add(store, prefix, "down_proj.weight", width, 4 * width, &out->down.weight);
}

AttentionShape memory_attention_shape(int64_t width, int64_t heads, bool causal) {
    int64_t e = width / heads;
    return (AttentionShape){heads, heads, e, (float)(1.0 / sqrt((double)e)), causal};
}

Status memory_linear(Tape *tape, Value *x, const Linear *linear, Value **out) {
    return layer_linear_group(tape, x, &linear, 1, NULL, (Dropout){0}, out); /* no adapters: no layout is read */
}

Status memory_mlp(Tape *tape, Value *x, const MemoryMlp *mlp, Value **out) {
    Value *wide, *activated;
    TRY(memory_linear(tape, x, &mlp->up, &wide));
    tape_done(tape, x);
    TRY(layer_gelu(tape, wide, &activated));
    tape_done(tape, wide);
    TRY(memory_linear(tape, activated, &mlp->down, out));
    tape_done(tape, activated);
    return STATUS_OK;
}
