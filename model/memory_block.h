/* What the chunk encoder and the resampler are made of: linears without bias, attention, a GELU MLP, all of width D. */
#ifndef MODEL_MEMORY_BLOCK_H
#define MODEL_MEMORY_BLOCK_H

#include "model/memory_layers.h"

#include <stdio.h>

#define MEMORY_NORM_EPSILON 1e-6f

/* q, k, v, o: [D,D]. */
typedef struct MemoryAttention {
    Linear q, k, v, o;
} MemoryAttention;

/* up [4D,D], down [D,4D]. */
typedef struct MemoryMlp {
    Linear up, down;
} MemoryMlp;

/* Adds one tensor PREFIX.NAME; rows 0: vector [columns]. Matrices decay unless they are learned tokens. */
typedef struct MemoryStore {
    Parameters *parameters;
    bool trainable;
} MemoryStore;
Status memory_add(const MemoryStore *store, const char *prefix, const char *name, int64_t rows, int64_t columns, Parameter **out);
/* PREFIX.{q,k,v,o}_proj.weight; PREFIX.{up,down}_proj.weight. */
Status memory_attention_add(const MemoryStore *store, const char *prefix, int64_t width, MemoryAttention *out);
Status memory_mlp_add(const MemoryStore *store, const char *prefix, int64_t width, MemoryMlp *out);

AttentionShape memory_attention_shape(int64_t width, int64_t heads, bool causal);
/* out[T,N] of one linear. */
Status memory_linear(Tape *tape, Value *x, const Linear *linear, Value **out);
/* down(gelu(up(x))); x is done with. */
Status memory_mlp(Tape *tape, Value *x, const MemoryMlp *mlp, Value **out);

#endif
