#include "model/encoder.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What one batch works on; arena memory. */
typedef struct Activations {
    Tensor x, q, k, v, out; /* [T,D] */
    Tensor up;              /* [T,F] */
    Tensor lse;             /* [H,T] */
} Activations;

typedef struct Batch {
    SequenceLayout layout;
    Tensor ids, rows; /* [T] I32: words, rows of the position table */
} Batch;

/* Bytes of the activations of one batch of capacity tokens, with what alignment may add. */
static size_t arena_bytes(const EncoderConfig *config, int64_t capacity) {
    size_t floats =
        (size_t)capacity * (size_t)(5 * config->hidden_size + config->intermediate_size + config->num_attention_heads);
    return floats * sizeof(float) + ((size_t)1 << 16);
}

static Status check_layers(const Encoder *e, const char *directory, int64_t layers) {
    if (layers < -1 || layers > e->config.num_hidden_layers)
        INVALID("%s: layer %lld is out of range, the encoder has %lld (0 is the output of the embeddings)", directory,
                (long long)layers, (long long)e->config.num_hidden_layers);
    return STATUS_OK;
}

static Status open_encoder(Encoder *e, const char *directory, int64_t layers) {
    TRY(encoder_config_read(directory, &e->config));
    TRY(check_layers(e, directory, layers));
    e->count = layers < 0 ? e->config.num_hidden_layers : layers;
    TRY_ALLOC(e->layers = calloc((size_t)e->count + 1, sizeof *e->layers));
    TRY(parameters_create(e->device, DTYPE_F32, &e->parameters));
    TRY(encoder_load_weights(e, directory));
    TRY(arena_create(e->device, arena_bytes(&e->config, e->capacity), &e->arena));
    size_t integers = (size_t)(2 * e->capacity + e->capacity + 1); /* at most one sequence per token */
    TRY_ALLOC(e->host = malloc(integers * sizeof *e->host));
    return device_allocate(e->device, integers * sizeof *e->host, &e->integers);
}

Status encoder_open(const char *directory, int64_t layers, int64_t max_tokens, Device *device, Encoder **out) {
    Encoder *e;
    TRY_ALLOC(e = calloc(1, sizeof *e));
    e->device = device;
    e->capacity = max_tokens;
    Status status = open_encoder(e, directory, layers);
    if (status)
        encoder_close(e);
    else
        *out = e;
    return status;
}

void encoder_close(Encoder *e) {
    if (!e) return;
    if (e->integers) device_release(e->device, e->integers);
    if (e->arena) arena_destroy(e->arena);
    if (e->parameters) parameters_destroy(e->parameters);
    safetensors_close(e->weights);
    free(e->layers);
    free(e->host);
    free(e);
}

static Status check_batch(const Encoder *e, const int32_t *ids, const int32_t *offsets, int64_t sequences) {
    int64_t window = encoder_config_window(&e->config);
    if (offsets[sequences] > e->capacity)
        INVALID("a batch of %d tokens, room was made for %lld", offsets[sequences], (long long)e->capacity);
    for (int64_t s = 0; s < sequences; ++s)
        if (offsets[s + 1] - offsets[s] > window)
            INVALID("a sequence of %d tokens, the encoder takes %lld", offsets[s + 1] - offsets[s], (long long)window);
    for (int64_t t = 0; t < offsets[sequences]; ++t)
        if (ids[t] < 0 || ids[t] >= e->config.vocab_size)
            INVALID("token id %d is not in the encoder's vocabulary of %lld", ids[t], (long long)e->config.vocab_size);
    return STATUS_OK;
}

/* Rows of the position table. RoBERTa does not count padding tokens, which a text may spell out: they keep the row of
 * padding, and the next token goes on where the last real one stopped. */
static void position_rows(const EncoderConfig *config, const int32_t *ids, const int32_t *offsets, int64_t sequences,
                          int32_t *rows) {
    for (int64_t s = 0; s < sequences; ++s) {
        int32_t next = (int32_t)config->position_offset;
        for (int32_t t = offsets[s]; t < offsets[s + 1]; ++t) {
            bool padding = config->family == ENCODER_ROBERTA && ids[t] == config->pad_token_id;
            rows[t] = padding ? (int32_t)config->pad_token_id : next++;
        }
    }
}

static Status make_batch(Encoder *e, const int32_t *ids, const int32_t *offsets, int64_t sequences, Batch *out) {
    int64_t tokens = offsets[sequences];
    int32_t *host = e->host, *device = e->integers;
    memcpy(host, ids, (size_t)tokens * sizeof *ids);
    position_rows(&e->config, ids, offsets, sequences, host + tokens);
    memcpy(host + 2 * tokens, offsets, (size_t)(sequences + 1) * sizeof *offsets);
    TRY(device_upload(e->device, device, host, (size_t)(2 * tokens + sequences + 1) * sizeof *host));
    out->ids = tensor_1d(device, DTYPE_I32, tokens);
    out->rows = tensor_1d(device + tokens, DTYPE_I32, tokens);
    out->layout = (SequenceLayout){.tokens = tokens,
                                   .sequences = sequences,
                                   .offsets = device + 2 * tokens,
                                   .host_offsets = host + 2 * tokens,
                                   .positions = device + tokens,
                                   .sample_of_token = device};
    for (int64_t s = 0; s < sequences; ++s)
        if (offsets[s + 1] - offsets[s] > out->layout.longest) out->layout.longest = offsets[s + 1] - offsets[s];
    return STATUS_OK;
}

static Status take(Encoder *e, Tensor *out, int64_t rows, int64_t columns) {
    *out = tensor_2d(NULL, DTYPE_F32, rows, columns);
    return arena_allocate(e->arena, tensor_bytes(*out), ARENA_LOW, &out->data);
}

static Status take_all(Encoder *e, int64_t tokens, Activations *a) {
    Tensor *wide[] = {&a->x, &a->q, &a->k, &a->v, &a->out};
    for (int i = 0; i < 5; ++i) TRY(take(e, wide[i], tokens, e->config.hidden_size));
    TRY(take(e, &a->up, tokens, e->config.intermediate_size));
    return take(e, &a->lse, e->config.num_attention_heads, tokens);
}

static void release_all(Encoder *e, const Activations *a) {
    void *const memory[] = {a->lse.data, a->up.data, a->out.data, a->v.data, a->k.data, a->q.data, a->x.data};
    for (int i = 0; i < 7; ++i) arena_release(e->arena, memory[i]);
}

/* y = x W^T + b. */
static Status linear(Encoder *e, Tensor y, Tensor x, const EncoderLinear *l) {
    return e->device->ops->matmul(e->device, e->arena, y, x, false, l->weight->value, true, l->bias->value, 1.0f, 0.0f);
}

/* x = LayerNorm(x + delta). */
static Status add_norm(Encoder *e, Tensor x, Tensor delta, const EncoderNorm *norm) {
    return e->device->ops->layer_norm_forward(e->device, x, x, delta, norm->weight->value, norm->bias->value,
                                              (float)e->config.layer_norm_eps);
}

static Status embed(Encoder *e, const Batch *batch, Activations *a) {
    const Ops *ops = e->device->ops;
    TRY(ops->embedding_forward(e->device, a->x, e->words->value, batch->ids));
    TRY(ops->embedding_forward(e->device, a->q, e->positions->value, batch->rows));
    return add_norm(e, a->x, a->q, &e->embedding_norm);
}

static Status run_layer(Encoder *e, const EncoderLayer *layer, const Batch *batch, Activations *a) {
    const Ops *ops = e->device->ops;
    int64_t tokens = batch->layout.tokens, heads = e->config.num_attention_heads, width = e->config.hidden_size / heads;
    AttentionShape shape = {heads, heads, width, 1.0f / sqrtf((float)width), false};
    Tensor *parts[] = {&a->q, &a->k, &a->v, &a->out};
    Tensor split[4]; /* the same as [T,H,E] */
    for (int i = 0; i < 4; ++i) split[i] = tensor_3d(parts[i]->data, DTYPE_F32, tokens, heads, width);
    TRY(linear(e, a->q, a->x, &layer->query));
    TRY(linear(e, a->k, a->x, &layer->key));
    TRY(linear(e, a->v, a->x, &layer->value));
    TRY(ops->attention_forward(e->device, e->arena, split[3], a->lse, split[0], split[1], split[2], &batch->layout, shape));
    TRY(linear(e, a->q, a->out, &layer->output));
    TRY(add_norm(e, a->x, a->q, &layer->attention_norm));
    TRY(linear(e, a->up, a->x, &layer->up));
    TRY(ops->gelu_forward(e->device, a->up, a->up));
    TRY(linear(e, a->q, a->up, &layer->down));
    return add_norm(e, a->x, a->q, &layer->output_norm);
}

Status encoder_run(Encoder *e, const int32_t *ids, const int32_t *offsets, int64_t sequences, float *hidden) {
    Batch batch = {0};
    Activations a = {0};
    Status status;
    TRY(check_batch(e, ids, offsets, sequences));
    if (offsets[sequences] == 0) return STATUS_OK;
    TRY(make_batch(e, ids, offsets, sequences, &batch));
    TRY_GOTO(take_all(e, batch.layout.tokens, &a), done);
    TRY_GOTO(embed(e, &batch, &a), done);
    for (int64_t i = 0; i < e->count; ++i) TRY_GOTO(run_layer(e, &e->layers[i], &batch, &a), done);
    status = device_download(e->device, hidden, a.x.data, tensor_bytes(a.x));
done:
    release_all(e, &a);
    return status;
}
