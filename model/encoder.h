/* Encoders of the BERT family for inference: BERT (Devlin et al. 2019), RoBERTa (Liu et al. 2019) and the encoder of BART
 * (Lewis et al. 2020). Post-norm layers: h = LayerNorm(h + O(attention(Q h, K h, V h))), attention in both directions;
 * h = LayerNorm(h + W2 gelu(W1 h)). In front, the sum of word and learned position embeddings through a LayerNorm.
 *
 * Weights are read from a Hugging Face directory and computed in float32, whatever their storage. Batches are packed. */
#ifndef MODEL_ENCODER_H
#define MODEL_ENCODER_H

#include "io/json_value.h"
#include "io/safetensors.h"
#include "model/parameters.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum EncoderFamily { ENCODER_BERT, ENCODER_ROBERTA, ENCODER_BART } EncoderFamily;

typedef struct EncoderConfig {
    EncoderFamily family;
    int64_t hidden_size, intermediate_size, num_hidden_layers, num_attention_heads, vocab_size;
    int64_t position_rows;   /* of the position table */
    int64_t position_offset; /* row of a sequence's first token: 0 (BERT), padding id + 1 (RoBERTa), 2 (BART) */
    int64_t type_vocab_size; /* token types; 0: none (BART) */
    int64_t pad_token_id;
    double layer_norm_eps;
    bool scale_embedding; /* word embeddings times sqrt(hidden_size) */
    char name[192];       /* _name_or_path; "" when absent */
} EncoderConfig;

/* Reads DIRECTORY/config.json. Another model_type, an activation or a layer order that this program does not compute, and
 * missing or impossible sizes are STATUS_INVALID naming file and key. */
Status encoder_config_read(const char *directory, EncoderConfig *out);
Status encoder_config_parse(const JsonValue *json, EncoderConfig *out);
/* Tokens of the longest sequence. */
int64_t encoder_config_window(const EncoderConfig *config);

typedef struct EncoderLinear {
    Parameter *weight, *bias;
} EncoderLinear;

typedef struct EncoderNorm {
    Parameter *weight, *bias;
} EncoderNorm;

typedef struct EncoderLayer {
    EncoderLinear query, key, value, output, up, down;
    EncoderNorm attention_norm, output_norm;
} EncoderLayer;

typedef struct Encoder {
    EncoderConfig config;
    Device *device;   /* borrowed */
    int64_t count;    /* layers that were loaded and are run */
    int64_t capacity; /* tokens of the largest batch */
    Safetensors *weights;
    Parameters *parameters;
    Parameter *words, *positions; /* positions: with token type 0 added, as every token here has it */
    EncoderNorm embedding_norm;
    EncoderLayer *layers;
    Arena *arena;
    void *integers; /* ids, positions and offsets of a batch; device */
    int32_t *host;
} Encoder;

/* Reads the first `layers` layers (0 .. num_hidden_layers; -1: all) for batches of at most max_tokens tokens. Missing files
 * and tensors, wrong shapes and a layer out of range are STATUS_INVALID by name. */
Status encoder_open(const char *directory, int64_t layers, int64_t max_tokens, Device *device, Encoder **out);
void encoder_close(Encoder *encoder); /* accepts NULL */

/* Hidden states behind the last layer that is run: sequence s is ids[offsets[s] .. offsets[s+1]), at most capacity tokens in
 * all, none longer than the window; hidden [T, hidden_size] floats on the host. An id or a length out of range is
 * STATUS_INVALID. */
Status encoder_run(Encoder *encoder, const int32_t *ids, const int32_t *offsets, int64_t sequences, float *hidden);

/* Fills the encoder's parameters (encoder_weights.c); part of encoder_open. */
Status encoder_load_weights(Encoder *encoder, const char *directory);

#endif
