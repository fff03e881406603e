/* From latents to soft tokens of the decoder: e = a (W z + b), or e = a (W2 gelu(W1 z + b1) + b2), with one learned scalar a
 * that keeps soft tokens at the scale of the decoder's embeddings.
 *
 * Parameters: memory.projection.{linear.{weight [d,D], bias}} or memory.projection.{fc1.{weight [d,D], bias}, fc2.{weight [d,d],
 * bias}}, and memory.projection.scale [1]. */
#ifndef MODEL_MEMORY_PROJECTION_H
#define MODEL_MEMORY_PROJECTION_H

#include "model/adamem_config.h"
#include "model/memory_block.h"

typedef struct MemoryProjection {
    Linear first, second; /* second: weight NULL when linear */
    Parameter *scale;
} MemoryProjection;

Status memory_projection_add(const AdamemConfig *config, int64_t decoder_width, const MemoryStore *store, MemoryProjection *out);

/* z [R,D] -> proj(z) [R,d] without the scale, and with it. z may have other readers. */
Status memory_projection_unscaled(const MemoryProjection *projection, Tape *tape, Value *z, Value **out);
Status memory_projection_forward(const MemoryProjection *projection, Tape *tape, Value *z, Value **e);

#endif
