#include "trainer/objectives/memory_loss.h"

#include "model/indices.h"

#include <stdlib.h>
#include <string.h>

MemoryLoss memory_loss_of(const Options *options, const Adamem *adamem, bool training, int64_t label_tokens, int64_t samples) {
    const AdamemOptions *o = &options->adamem;
    const bool pretrain = strcmp(options->training.objective, "memory_pretrain") == 0;
    MemoryLoss loss = {
        .adamem = adamem, .nll = 1, .kl_temperature = o->kl_temperature, .label_tokens = label_tokens, .samples = samples};
    if (!training) return loss;
    loss.nll = o->nll_weight;
    if (pretrain) {
        loss.kl = o->kl_weight;
    } else {
        loss.contrastive = o->contrastive_weight;
        loss.diversity = o->diversity_weight;
    }
    return loss;
}

/* Where the parts of each sequence lie. */
typedef struct Parts {
    AdamemContexts contexts;
    AdamemQueries queries;
    AdamemTokens tokens, answers;
    int32_t *first_label; /* [S] token of the packed batch */
} Parts;

/* Some ids of each sequence, s from begin[s] to end[s], one behind the other. */
static Status gather_ids(Tape *tape, const PackedBatch *packed, const int32_t *begin, const int32_t *end, const int32_t **ids,
                         const int64_t **offsets) {
    int32_t *out;
    void *memory;
    int64_t *ends;
    TRY(indices_allocate(tape, packed->tokens, &out));
    TRY(tape_host_allocate(tape, (size_t)(packed->sequences + 1) * sizeof *ends, &memory));
    ends = memory;
    for (int64_t s = 0; s < packed->sequences; ++s) {
        int64_t count = end[s] - begin[s];
        if (count > 0) memcpy(out + ends[s], packed->input_ids + begin[s], (size_t)count * sizeof *out);
        ends[s + 1] = ends[s] + count;
    }
    *ids = out;
    *offsets = ends;
    return STATUS_OK;
}

/* A label that the decoder's first own token would be has no row before it with every interface. */
static Status find_labels(const PackedBatch *packed, const int32_t *own, int32_t *first_label) {
    for (int64_t s = 0; s < packed->sequences; ++s) first_label[s] = packed->offsets[s + 1];
    for (int64_t i = packed->label_count - 1; i >= 0; --i) {
        int32_t token = packed->label_rows[i] + 1, s = packed->sample_of_token[token];
        first_label[s] = token;
        if (token <= own[s]) INVALID("sample %lld of the data set has no query", (long long)packed->samples[s]);
    }
    return STATUS_OK;
}

static Status part(Tape *tape, const PackedBatch *packed, Parts *out) {
    const int64_t count = packed->sequences;
    const int32_t *begin = packed->offsets, *end = packed->offsets + 1;
    int32_t *own;
    *out = (Parts){.contexts.count = count, .queries.count = count, .tokens.count = count, .answers.count = count};
    TRY(indices_allocate(tape, count + 1, &own));
    TRY(indices_allocate(tape, count + 1, &out->first_label));
    for (int64_t s = 0; s < count; ++s) own[s] = begin[s] + packed->contexts[s];
    TRY(find_labels(packed, own, out->first_label));
    TRY(gather_ids(tape, packed, begin, own, &out->contexts.ids, &out->contexts.offsets));
    TRY(gather_ids(tape, packed, own, out->first_label, &out->queries.ids, &out->queries.offsets));
    TRY(gather_ids(tape, packed, own, end, &out->tokens.ids, &out->tokens.offsets));
    return gather_ids(tape, packed, out->first_label, end, &out->answers.ids, &out->answers.offsets);
}

/* The rows of hidden that predict the labels, in the labels' order. */
static Status label_rows(Tape *tape, const PackedBatch *packed, const AdamemHidden *hidden, Tensor *out) {
    int32_t *rows;
    TRY(indices_allocate(tape, packed->label_count, &rows));
    for (int64_t i = 0; i < packed->label_count; ++i) {
        int32_t row = packed->label_rows[i], s = packed->sample_of_token[row];
        rows[i] = (int32_t)(hidden->first_row[s] + row - packed->offsets[s] - packed->contexts[s]);
    }
    return indices_upload(tape, rows, packed->label_count, out);
}

static Status new_floats(Tape *tape, int64_t n, Tensor *out) {
    Value *value;
    TRY(tape_value(tape, DTYPE_F32, 1, &n, false, &value));
    *out = value->data;
    return STATUS_OK;
}

/* Hidden states of the decoder that reads all of the sequence, at the rows that predict labels. Nothing of it is recorded: the
 * decoder is frozen. */
static Status teacher_rows(const Decoder *decoder, Tape *tape, const DeviceBatch *batch, Value **out) {
    void *memory;
    Value *hidden;
    TRY(tape_host_allocate(tape, sizeof(DecoderRun), &memory));
    DecoderRun *run = memory;
    run->layout = &batch->layout;
    TRY(decoder_forward(decoder, tape, run, batch->ids, &hidden));
    TRY(layer_gather(tape, hidden, batch->rows, out));
    tape_done(tape, hidden);
    return STATUS_OK;
}

static Status label_terms(const MemoryLoss *loss, Tape *tape, Value *hidden, Value *teacher, Tensor rows, DeviceBatch *batch,
                          MemoryTensors *out) {
    const Parameter *head = loss->adamem->decoder->head;
    const double share = 1.0 / (double)loss->label_tokens;
    if (!teacher) {
        CrossEntropySettings settings = {.scale = (float)(loss->nll * share)};
        return layer_linear_cross_entropy(tape, hidden, head, rows, batch->labels, &settings, batch->nll);
    }
    DistillationSettings settings = {(float)loss->kl_temperature, (float)(loss->nll * share), (float)(loss->kl * share)};
    TRY(new_floats(tape, batch->labels.shape[0], &out->kl));
    TRY(layer_linear_distillation(tape, hidden, head, teacher->data, head->value, rows, batch->labels, settings, batch->nll,
                                  out->kl));
    tape_done(tape, teacher);
    return STATUS_OK;
}

/* Equal answers have equal numbers: they are no negatives of each other. */
static Status answer_groups(Tape *tape, const AdamemTokens *answers, Tensor *out) {
    int32_t *groups;
    TRY(indices_allocate(tape, answers->count, &groups));
    for (int64_t b = 0; b < answers->count; ++b) {
        const int32_t *own = answers->ids + answers->offsets[b];
        int64_t length = answers->offsets[b + 1] - answers->offsets[b], a = 0;
        while (a < b && (answers->offsets[a + 1] - answers->offsets[a] != length ||
                         memcmp(answers->ids + answers->offsets[a], own, (size_t)length * sizeof *own) != 0))
            ++a;
        groups[b] = (int32_t)a;
    }
    return indices_upload(tape, groups, answers->count, out);
}

/* Terms on the latents themselves. */
static Status latent_terms(const MemoryLoss *loss, Tape *tape, const AdamemLatents *latents, const AdamemTokens *answers,
                           MemoryTensors *out) {
    const double share = 1.0 / (double)loss->samples;
    if (loss->contrastive > 0) {
        Value *u, *v;
        Tensor groups;
        TRY(answer_groups(tape, answers, &groups));
        TRY(new_floats(tape, answers->count, &out->contrastive));
        TRY(adamem_contrastive(loss->adamem, tape, latents, answers, &u, &v));
        TRY(layer_info_nce(tape, u, v, loss->adamem->log_scale, groups, (float)(loss->contrastive * share), out->contrastive));
    }
    if (loss->diversity > 0) {
        TRY(new_floats(tape, answers->count, &out->diversity));
        TRY(layer_diversity(tape, latents->z, latents->layout, (float)(loss->diversity * share), out->diversity));
    }
    return STATUS_OK;
}

Status memory_loss_forward(const MemoryLoss *loss, Tape *tape, const PackedBatch *packed, DeviceBatch *batch,
                           MemoryTensors *out) {
    Parts parts;
    AdamemMemory memory;
    AdamemLatents latents;
    AdamemHidden hidden;
    Value *teacher = NULL;
    Tensor rows;
    *out = (MemoryTensors){tensor_absent(), tensor_absent(), tensor_absent()};
    TRY(part(tape, packed, &parts));
    if (loss->kl > 0) TRY(teacher_rows(loss->adamem->decoder, tape, batch, &teacher));
    TRY(adamem_encode(loss->adamem, tape, &parts.contexts, &memory));
    TRY(adamem_condition(loss->adamem, tape, &memory, &parts.queries, &latents));
    TRY(adamem_decode(loss->adamem, tape, &latents, &parts.tokens, &hidden));
    TRY(label_rows(tape, packed, &hidden, &rows));
    TRY(label_terms(loss, tape, hidden.rows, teacher, rows, batch, out));
    return latent_terms(loss, tape, &latents, &parts.answers, out);
}

static Status sum_of(Device *device, Tensor x, double *sum) {
    *sum = 0;
    if (!x.data) return STATUS_OK;
    const int64_t n = tensor_elements(x);
    float *values;
    TRY_ALLOC(values = malloc((size_t)n * sizeof *values + 1));
    Status status = device_download(device, values, x.data, tensor_bytes(x));
    for (int64_t i = 0; i < n && !status; ++i) *sum += (double)values[i];
    free(values);
    return status;
}

Status memory_loss_read(const MemoryLoss *loss, Device *device, DeviceBatch *batch, const MemoryTensors *tensors,
                        MemoryShare *out) {
    const double labels = (double)loss->label_tokens, samples = (double)loss->samples;
    TRY(device_batch_nll_sum(batch, &out->nll));
    TRY(sum_of(device, tensors->kl, &out->kl));
    TRY(sum_of(device, tensors->contrastive, &out->contrastive));
    TRY(sum_of(device, tensors->diversity, &out->diversity));
    out->nll /= labels;
    out->kl /= labels;
    out->contrastive /= samples;
    out->diversity /= samples;
    out->loss = loss->nll * out->nll;
    if (loss->kl > 0) out->loss += loss->kl * out->kl;
    if (loss->contrastive > 0) out->loss += loss->contrastive * out->contrastive;
    if (loss->diversity > 0) out->loss += loss->diversity * out->diversity;
    return STATUS_OK;
}
