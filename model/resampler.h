/* The latent resampler: K latents per query look at the coarse memory of its context.
 *
 * Per layer, with [gamma1,beta1,gamma2,beta2,gamma3,beta3] = W_f c + b_f of the query code c (zero at the start):
 *   u = (1+gamma1) RMSNorm(z) + beta1;  z += O attention(Q u, K m, V m), m = [RMSNorm(H) ; u]
 *   u = (1+gamma2) RMSNorm(z) + beta2;  z += O attention(Q u, K u, V u)
 *   u = (1+gamma3) RMSNorm(z) + beta3;  z += Down gelu(Up u);   at the end RMSNorm.
 * With nested latents both attentions are causal among the latents. Without FiLM, c is added to z in front of the first layer
 * (ADAMEM_ADD) or left out (ADAMEM_AGNOSTIC).
 *
 * Parameters: memory.resampler.{latents [K,D], norm.weight} and, per layer, .layers.I.{film.{weight [6D,D], bias [6D]},
 * cross_attn_layernorm.weight, memory_layernorm.weight, cross_attn.{q,k,v,o}_proj.weight, self_attn_layernorm.weight,
 * self_attn.{q,k,v,o}_proj.weight, mlp_layernorm.weight, mlp.{up,down}_proj.weight}. */
#ifndef MODEL_RESAMPLER_H
#define MODEL_RESAMPLER_H

#include "model/adamem_config.h"
#include "model/memory_block.h"

typedef struct ResamplerLayer {
    Linear film; /* weight NULL: no FiLM */
    Parameter *cross_norm, *memory_norm, *self_norm, *mlp_norm;
    MemoryAttention cross, self;
    MemoryMlp mlp;
} ResamplerLayer;

typedef struct Resampler {
    AdamemConfig config;
    Parameter *latents, *norm;
    ResamplerLayer *layers; /* [resampler_layers], owned */
} Resampler;

Status resampler_add(const AdamemConfig *config, const MemoryStore *store, Resampler *out);
void resampler_free(Resampler *resampler);

/* Who looks where. Host; copied. */
typedef struct ResamplerQueries {
    int64_t count;
    const int64_t *latents;                      /* [count] K of each */
    const int64_t *memory_begin, *memory_length; /* [count] rows of H */
} ResamplerQueries;

/* memory H [M,D], code [count,D] (not read when query-agnostic, may be NULL then) -> z [sum K, D] and its layout. */
Status resampler_forward(const Resampler *resampler, Tape *tape, Value *memory, Value *code, const ResamplerQueries *queries,
                         Value **z, const SequenceLayout **layout);

#endif
