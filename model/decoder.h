/* The Qwen2 decoder with optional LoRA on any of its seven linears.
 *
 * Per layer: h += O(attention(rope(Q n1), rope(K n1), V n1)), n1 = RMSNorm(h); h += Down(silu(Gate n2) * Up n2),
 * n2 = RMSNorm(h); at the end RMSNorm and the head (tied to the embedding or not). Packed batches only. */
#ifndef MODEL_DECODER_H
#define MODEL_DECODER_H

#include "io/safetensors.h"
#include "model/layers.h"
#include "model/model_config.h"

typedef struct DecoderLayer {
    Parameter *input_norm, *post_attention_norm;
    Linear linears[LINEAR_KINDS];
} DecoderLayer;

typedef struct Decoder {
    ModelConfig config;
    LoraSettings lora;
    Parameters *parameters;                   /* borrowed */
    Parameter *embedding, *final_norm, *head; /* head == embedding when tied */
    DecoderLayer *layers;
    size_t base_count;  /* base tensors come first in the store: items[0 .. base_count) */
    size_t adapter_end; /* then the adapters': items[base_count .. adapter_end) */
} Decoder;

typedef struct DecoderSettings {
    LoraSettings lora;            /* targets all false: no adapter */
    const char *const *trainable; /* regular expressions searched in the names of base tensors trained in full */
    int64_t trainable_count;
} DecoderSettings;

/* Adds all tensors to parameters. Values are undefined until loaded or initialised. A pattern that matches nothing is
 * STATUS_INVALID. */
Status decoder_add(const ModelConfig *config, const DecoderSettings *settings, Parameters *parameters, Decoder **out);
/* The same for a store that holds nothing else: allocates its flat arrays too (moments: see parameters_allocate). */
Status decoder_create(const ModelConfig *config, const DecoderSettings *settings, Parameters *parameters, bool moments,
                      Decoder **out);
void decoder_destroy(Decoder *decoder);

/* Base weights from a model's safetensors; missing tensors and wrong shapes are STATUS_INVALID by name. The mapping must
 * outlive the decoder (see parameter_load). */
Status decoder_load(Decoder *decoder, const Safetensors *weights);
/* Random base weights as Transformers initialises Qwen2: N(0, initializer_range) for matrices, zero biases, unit norms. A
 * pure function of (seed, tensor name). */
Status decoder_initialise(Decoder *decoder, uint64_t seed);
/* The n initial values of one base tensor, as decoder_initialise gives them. */
void decoder_initial_values(const ModelConfig *config, const char *name, int64_t n, uint64_t seed, float *out);
/* All LoRA pairs: A uniform, B zero (lora.h). */
Status decoder_initialise_lora(Decoder *decoder, uint64_t seed);
/* LoRA pairs from a PEFT directory's adapter_model.safetensors: exactly the decoder's, or STATUS_INVALID by name. */
Status decoder_load_lora(Decoder *decoder, const Safetensors *adapter);

/* off: passes from now on are those of the base model, without the adapters' arithmetic and with no second copy of the weights;
 * on: as before. Between passes only; while they are off, nothing is trained and no adapter is loaded. */
void decoder_switch_adapters(Decoder *decoder, bool on);

/* Attention of one layer: q [T,H*E], k, v [T,G*E], rotated -> out [T,H*E]. */
typedef Status (*AttentionFunction)(Tape *tape, void *context, int64_t layer, Value *q, Value *k, Value *v, AttentionShape shape,
                                    Value **out);

/* What one forward pass is about. layout and cos_sin must stay valid until the backward pass. */
typedef struct DecoderRun {
    const SequenceLayout *layout;
    Tensor cos_sin;              /* [T, head_dim] F32, filled by decoder_forward */
    Dropout dropout;             /* p = 0 in evaluation; input_id is set per linear group */
    AttentionFunction attention; /* NULL: inside each sequence of the batch; else in its place (kv_cache.h) */
    void *attention_context;
} DecoderRun;

/* ids [T] I32 -> hidden [T,D] behind the final norm. */
Status decoder_forward(const Decoder *decoder, Tape *tape, DecoderRun *run, Tensor ids, Value **hidden);
/* The same from input embeddings. */
Status decoder_forward_embeddings(const Decoder *decoder, Tape *tape, DecoderRun *run, Value *embeddings, Value **hidden);

#endif
