#include "model/generation_step.h"

#include <stdlib.h>
#include <string.h>

void generation_step_free(GenerationStep *step) {
    if (step->device != step->host) device_release(tape_device(step->tape), step->device);
    free(step->host);
    free(step->logits);
    free(step->embedded);
    *step = (GenerationStep){0};
}

/* The integers of a batch in one array, so that one upload carries them. */
static int64_t place_parts(GenerationStep *step) {
    int64_t t = step->most_tokens, s = step->most_sequences, at = 0;
    int32_t **parts[] = {&step->ids, &step->positions, &step->slots, &step->offsets, &step->lengths, &step->rows, &step->tables};
    const int64_t sizes[] = {t, t, t, s + 1, s, s, s * step->table_width};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; ++i) {
        if (step->host) *parts[i] = step->host + at;
        at += (sizes[i] + 15) / 16 * 16;
    }
    return at;
}

Status generation_step_reserve(GenerationStep *step, const Decoder *decoder, Tape *tape, int64_t tokens, int64_t sequences,
                               int64_t table_width) {
    if (step->host && step->decoder == decoder && tokens <= step->most_tokens && sequences <= step->most_sequences &&
        table_width <= step->table_width)
        return STATUS_OK;
    if (step->host) generation_step_free(step);
    Device *device = tape_device(tape);
    *step = (GenerationStep){
        .decoder = decoder, .tape = tape, .most_tokens = tokens, .most_sequences = sequences, .table_width = table_width};
    size_t integers = (size_t)place_parts(step);
    TRY_ALLOC(step->embedded = calloc((size_t)sequences, sizeof *step->embedded));
    TRY_ALLOC(step->host = calloc(integers, sizeof *step->host));
    (void)place_parts(step);
    step->device = step->host;
    if (device_is_host(device)) return STATUS_OK;
    void *memory;
    TRY(device_allocate(device, integers * sizeof *step->host, &memory));
    step->device = memory;
    TRY_ALLOC(step->logits = malloc((size_t)(sequences * decoder->config.vocab_size) * sizeof *step->logits));
    return STATUS_OK;
}

void generation_step_clear(GenerationStep *step) {
    step->tokens = step->sequences = step->sampled = step->longest = step->embedded_count = 0;
}

void generation_step_add(GenerationStep *step, GenerationEmbedded embedded, const int32_t *ids, int64_t count, int64_t before,
                         const int32_t *table, int64_t table_count, bool sample) {
    int64_t first = step->tokens, s = step->sequences++;
    embedded.first_row = first;
    if (embedded.rows > 0) step->embedded[step->embedded_count++] = embedded;
    count += embedded.rows;
    for (int64_t i = 0; i < count; ++i) {
        int64_t position = before + i;
        step->ids[first + i] = i < embedded.rows ? 0 : ids[i - embedded.rows]; /* of an embedding: any id, its row is replaced */
        step->positions[first + i] = (int32_t)position;
        step->slots[first + i] = (int32_t)(table[position / CACHE_BLOCK] * CACHE_BLOCK + position % CACHE_BLOCK);
    }
    step->tokens += count;
    step->offsets[s] = (int32_t)first;
    step->offsets[s + 1] = (int32_t)step->tokens;
    step->lengths[s] = (int32_t)(before + count);
    memcpy(step->tables + s * step->table_width, table, (size_t)table_count * sizeof *table);
    if (before + count > step->longest) step->longest = before + count;
    if (sample) step->rows[step->sampled++] = (int32_t)(step->tokens - 1);
}

static const int32_t *on_device(const GenerationStep *step, const int32_t *part) { return step->device + (part - step->host); }

static KvPass cache_pass(const GenerationStep *step, KvCache *cache) {
    return (KvPass){.cache = cache,
                    .layout = {.tokens = step->tokens,
                               .sequences = step->sequences,
                               .longest = step->longest,
                               .table_width = step->table_width,
                               .offsets = on_device(step, step->offsets),
                               .host_offsets = step->offsets,
                               .lengths = on_device(step, step->lengths),
                               .host_lengths = step->lengths,
                               .block_table = on_device(step, step->tables),
                               .host_block_table = step->tables,
                               .slots = on_device(step, step->slots)}};
}

/* The head for the wanted rows only: with a large vocabulary it is a large part of a small model. */
static Status run_head(GenerationStep *step, Value *hidden, float **logits) {
    const Decoder *decoder = step->decoder;
    Tape *tape = step->tape;
    Device *device = tape_device(tape);
    Value *last, *out;
    Tensor rows = tensor_1d((void *)(uintptr_t)on_device(step, step->rows), DTYPE_I32, step->sampled);
    TRY(tape_value(tape, hidden->data.dtype, 2, (int64_t[]){step->sampled, decoder->config.hidden_size}, false, &last));
    TRY(tape_ops(tape)->embedding_forward(device, last->data, hidden->data, rows));
    TRY(tape_value(tape, DTYPE_F32, 2, (int64_t[]){step->sampled, decoder->config.vocab_size}, false, &out));
    TRY(tape_ops(tape)->matmul(device, tape_arena(tape), out->data, last->data, false, decoder->head->value, true,
                               tensor_absent(), 1.0f, 0.0f));
    *logits = out->data.data;
    if (device_is_host(device)) return STATUS_OK;
    *logits = step->logits;
    return device_download(device, step->logits, out->data.data, tensor_bytes(out->data));
}

/* The rows of the tokens, then the embeddings over theirs. */
static Status embed(GenerationStep *step, Tensor ids, Value **out) {
    Device *device = tape_device(step->tape);
    const int64_t width = step->decoder->config.hidden_size;
    TRY(layer_embedding(step->tape, step->decoder->embedding, ids, out));
    const size_t row_bytes = (size_t)width * dtype_bytes((*out)->data.dtype);
    for (int64_t i = 0; i < step->embedded_count; ++i) {
        const GenerationEmbedded *e = &step->embedded[i];
        char *rows = (char *)(*out)->data.data + (size_t)e->first_row * row_bytes;
        TRY(device_upload(device, rows, e->data, (size_t)e->rows * row_bytes));
    }
    return STATUS_OK;
}

static Status run_decoder(GenerationStep *step, DecoderRun *run, Tensor ids, Value **hidden) {
    Value *embeddings;
    if (step->embedded_count == 0) return decoder_forward(step->decoder, step->tape, run, ids, hidden);
    TRY(embed(step, ids, &embeddings));
    return decoder_forward_embeddings(step->decoder, step->tape, run, embeddings, hidden);
}

Status generation_step_run(GenerationStep *step, KvCache *cache, float **logits) {
    Tape *tape = step->tape;
    Device *device = tape_device(tape);
    KvPass pass = cache_pass(step, cache);
    SequenceLayout layout = {.tokens = step->tokens,
                             .sequences = step->sequences,
                             .longest = step->longest,
                             .offsets = on_device(step, step->offsets),
                             .host_offsets = step->offsets,
                             .positions = on_device(step, step->positions),
                             .sample_of_token = on_device(step, step->positions)}; /* keys of dropout, which is off */
    DecoderRun run = {.layout = &layout, .attention = kv_cache_attention, .attention_context = &pass};
    Value *hidden;
    *logits = NULL;
    if (step->device != step->host) {
        size_t used = (size_t)(step->tables + step->sequences * step->table_width - step->host);
        TRY(device_upload(device, step->device, step->host, used * sizeof *step->host));
    }
    TRY(tape_begin(tape, false, RECOMPUTE_NONE));
    Tensor ids = tensor_1d((void *)(uintptr_t)on_device(step, step->ids), DTYPE_I32, step->tokens);
    TRY(run_decoder(step, &run, ids, &hidden));
    if (step->sampled > 0) TRY(run_head(step, hidden, logits));
    return device_synchronize(device);
}
