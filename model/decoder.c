#include "model/decoder.h"

#include <math.h>
#include <string.h>

/* Dropout keys: each activation that linears read has its own input_id, so that masks are independent. */
enum { INPUT_ATTENTION, INPUT_OUTPUT, INPUT_MLP, INPUT_DOWN, INPUTS_PER_LAYER };

typedef struct LayerRun {
    const Decoder *decoder;
    const DecoderRun *run;
    int64_t layer;
} LayerRun;

static Dropout dropout_of(const LayerRun *run, int input) {
    Dropout dropout = run->run->dropout;
    dropout.input_id = (uint32_t)(run->layer * INPUTS_PER_LAYER + input + 1);
    return dropout;
}

static Status attention_block(Tape *tape, const LayerRun *run, Value *normed, Value **delta) {
    const ModelConfig *config = &run->decoder->config;
    const DecoderLayer *layer = &run->decoder->layers[run->layer];
    const SequenceLayout *layout = run->run->layout;
    const Linear *qkv[3] = {&layer->linears[Q_PROJ], &layer->linears[K_PROJ], &layer->linears[V_PROJ]};
    Value *heads[3], *mixed;
    TRY(layer_linear_group(tape, normed, qkv, 3, layout, dropout_of(run, INPUT_ATTENTION), heads));
    tape_done(tape, normed);
    TRY(layer_rope(tape, heads[0], config->head_dim, run->run->cos_sin));
    TRY(layer_rope(tape, heads[1], config->head_dim, run->run->cos_sin));
    AttentionShape shape = {config->num_attention_heads, config->num_key_value_heads, config->head_dim,
                            (float)(1.0 / sqrt((double)config->head_dim)), true};
    if (run->run->attention)
        TRY(run->run->attention(tape, run->run->attention_context, run->layer, heads[0], heads[1], heads[2], shape, &mixed));
    else
        TRY(layer_attention(tape, heads[0], heads[1], heads[2], layout, shape, &mixed));
    for (int i = 0; i < 3; ++i) tape_done(tape, heads[i]);
    const Linear *o = &layer->linears[O_PROJ];
    TRY(layer_linear_group(tape, mixed, &o, 1, layout, dropout_of(run, INPUT_OUTPUT), delta));
    tape_done(tape, mixed);
    return STATUS_OK;
}

static Status mlp_block(Tape *tape, const LayerRun *run, Value *normed, Value **delta) {
    const DecoderLayer *layer = &run->decoder->layers[run->layer];
    const SequenceLayout *layout = run->run->layout;
    const Linear *gate_up[2] = {&layer->linears[GATE_PROJ], &layer->linears[UP_PROJ]};
    Value *wide[2], *activated;
    TRY(layer_linear_group(tape, normed, gate_up, 2, layout, dropout_of(run, INPUT_MLP), wide));
    tape_done(tape, normed);
    TRY(layer_swiglu(tape, wide[0], wide[1], &activated));
    tape_done(tape, wide[0]);
    tape_done(tape, wide[1]);
    const Linear *down = &layer->linears[DOWN_PROJ];
    TRY(layer_linear_group(tape, activated, &down, 1, layout, dropout_of(run, INPUT_DOWN), delta));
    tape_done(tape, activated);
    return STATUS_OK;
}

/* inputs: the residual stream and what the layer before adds to it (absent in front of layer 0); outputs: the same. */
static Status layer_forward(Tape *tape, void *context, Value *const *inputs, Value **outputs) {
    const LayerRun *run = context;
    const DecoderLayer *layer = &run->decoder->layers[run->layer];
    float epsilon = (float)run->decoder->config.rms_norm_eps;
    Value *residual, *normed, *delta, *after_attention;
    TRY(layer_residual_rms_norm(tape, inputs[0], run->layer ? inputs[1] : NULL, layer->input_norm, epsilon, &residual, &normed));
    TRY(attention_block(tape, run, normed, &delta));
    TRY(layer_residual_rms_norm(tape, residual, delta, layer->post_attention_norm, epsilon, &after_attention, &normed));
    tape_done(tape, delta);
    if (run->layer) tape_done(tape, residual);
    TRY(mlp_block(tape, run, normed, &outputs[1]));
    outputs[0] = after_attention;
    return STATUS_OK;
}

Status decoder_forward_embeddings(const Decoder *decoder, Tape *tape, DecoderRun *run, Value *embeddings, Value **hidden) {
    const ModelConfig *config = &decoder->config;
    Value *table;
    TRY(tape_value(tape, DTYPE_F32, 2, (int64_t[]){run->layout->tokens, config->head_dim}, false, &table));
    run->cos_sin = table->data;
    TRY(tape_ops(tape)->rope_table(tape_device(tape), run->cos_sin, run->layout->positions, (float)config->rope_theta));
    void *memory;
    TRY(tape_host_allocate(tape, (size_t)config->num_hidden_layers * sizeof(LayerRun), &memory));
    LayerRun *layers = memory;
    Value *stream[2] = {embeddings, NULL};
    for (int64_t i = 0; i < config->num_hidden_layers; ++i) {
        layers[i] = (LayerRun){decoder, run, i};
        Value *next[2];
        TRY(tape_segment(tape, layer_forward, &layers[i], stream, i ? 2 : 1, next, 2));
        for (int k = 0; k < 2; ++k) {
            tape_done(tape, stream[k]);
            stream[k] = next[k];
        }
    }
    Value *sum;
    TRY(layer_residual_rms_norm(tape, stream[0], stream[1], decoder->final_norm, (float)config->rms_norm_eps, &sum, hidden));
    tape_done(tape, stream[0]);
    tape_done(tape, stream[1]);
    tape_done(tape, sum);
    return STATUS_OK;
}

Status decoder_forward(const Decoder *decoder, Tape *tape, DecoderRun *run, Tensor ids, Value **hidden) {
    Value *embeddings;
    TRY(layer_embedding(tape, decoder->embedding, ids, &embeddings));
    return decoder_forward_embeddings(decoder, tape, run, embeddings, hidden);
}

void decoder_switch_adapters(Decoder *decoder, bool on) {
    for (int64_t i = 0; i < decoder->config.num_hidden_layers; ++i)
        for (int kind = 0; kind < LINEAR_KINDS; ++kind) {
            Linear *linear = &decoder->layers[i].linears[kind];
            Lora *from = on ? &linear->resting : &linear->lora, *to = on ? &linear->lora : &linear->resting;
            if (!from->a) continue;
            *to = *from;
            *from = (Lora){.a = NULL};
        }
}
