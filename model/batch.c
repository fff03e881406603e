#include "model/batch.h"

#include <string.h>

static Status open_batch(DeviceBatch *batch, Device *device) {
    if (batch->device) return STATUS_OK;
    batch->device = device;
    TRY(device_event_create(device, &batch->uploaded));
    TRY(device_event_create(device, &batch->used));
    return device_event_create(device, &batch->counted);
}

/* Nothing may be on its way when memory changes hands. */
static Status grow(DeviceBatch *batch, size_t integers, size_t floats) {
    Device *device = batch->device;
    if (integers > batch->integer_capacity || floats > batch->float_capacity) TRY(device_synchronize(device));
    if (integers > batch->integer_capacity) {
        batch->integer_capacity = 0;
        device_release_pinned(device, batch->host);
        device_release(device, batch->integers);
        batch->host = NULL;
        batch->integers = NULL;
        TRY(device_allocate_pinned(device, integers * sizeof *batch->host, (void **)&batch->host));
        if (!device_is_host(device)) TRY(device_allocate(device, integers * sizeof *batch->host, &batch->integers));
        batch->integer_capacity = integers;
    }
    if (floats > batch->float_capacity) {
        batch->float_capacity = 0;
        device_release_pinned(device, batch->host_nll);
        device_release(device, batch->floats);
        batch->host_nll = NULL;
        batch->floats = NULL;
        TRY(device_allocate_pinned(device, floats * sizeof *batch->host_nll, (void **)&batch->host_nll));
        TRY(device_allocate(device, floats * sizeof *batch->host_nll, &batch->floats));
        batch->float_capacity = floats;
    }
    return STATUS_OK;
}

static size_t integers_of(int64_t tokens, int64_t sequences, int64_t labels) {
    return (size_t)(3 * tokens + sequences + 1 + 2 * labels);
}

Status device_batch_reserve(DeviceBatch *batch, Device *device, int64_t tokens, int64_t sequences, int64_t labels) {
    TRY(open_batch(batch, device));
    TRY(device_event_wait(device, batch->uploaded));
    return grow(batch, integers_of(tokens, sequences, labels), (size_t)labels);
}

/* Appends count integers to the staging array; returns their place. */
static size_t stage(DeviceBatch *batch, size_t *used, const int32_t *values, int64_t count) {
    size_t place = *used;
    if (count > 0) memcpy(batch->host + place, values, (size_t)count * sizeof *values);
    *used += (size_t)count;
    return place;
}

Status device_batch_stage(DeviceBatch *batch, Device *device, const PackedBatch *packed) {
    int64_t tokens = packed->tokens, labels = packed->label_count;
    size_t used = 0;
    TRY(open_batch(batch, device));
    TRY(device_event_wait(device, batch->uploaded)); /* what the host memory held has been read */
    TRY(grow(batch, integers_of(tokens, packed->sequences, labels), (size_t)labels));
    size_t ids = stage(batch, &used, packed->input_ids, tokens);
    size_t positions = stage(batch, &used, packed->positions, tokens);
    size_t keys = stage(batch, &used, packed->sample_of_token, tokens);
    for (int64_t t = 0; t < tokens; ++t)
        batch->host[keys + (size_t)t] = (int32_t)(uint32_t)(uint64_t)packed->samples[packed->sample_of_token[t]];
    size_t offsets = stage(batch, &used, packed->offsets, packed->sequences + 1);
    size_t rows = stage(batch, &used, packed->label_rows, labels);
    size_t label_ids = stage(batch, &used, packed->label_ids, labels);
    int32_t *base = batch->host;
    if (!device_is_host(device)) {
        base = batch->integers;
        TRY(device_queue_wait(device, DEVICE_UPLOADS, batch->used));
        TRY(device_upload_beside(device, base, batch->host, used * sizeof *base));
        TRY(device_event_mark(device, DEVICE_UPLOADS, batch->uploaded));
    }
    batch->layout = (SequenceLayout){.tokens = tokens,
                                     .sequences = packed->sequences,
                                     .longest = packed->longest,
                                     .offsets = base + offsets,
                                     .host_offsets = batch->host + offsets,
                                     .positions = base + positions,
                                     .sample_of_token = base + keys};
    batch->ids = tensor_1d(base + ids, DTYPE_I32, tokens);
    batch->rows = tensor_1d(base + rows, DTYPE_I32, labels);
    batch->labels = tensor_1d(base + label_ids, DTYPE_I32, labels);
    batch->nll = tensor_1d(batch->floats, DTYPE_F32, labels);
    batch->counting = false;
    return STATUS_OK;
}

Status device_batch_use(DeviceBatch *batch) { return device_queue_wait(batch->device, DEVICE_WORK, batch->uploaded); }

Status device_batch_done(DeviceBatch *batch) { return device_event_mark(batch->device, DEVICE_WORK, batch->used); }

/* All work issued so far may read what the batch holds. */
Status device_batch_set(DeviceBatch *batch, Device *device, const PackedBatch *packed) {
    TRY(open_batch(batch, device));
    TRY(device_batch_done(batch));
    TRY(device_batch_stage(batch, device, packed));
    return device_batch_use(batch);
}

void device_batch_free(DeviceBatch *batch) {
    if (batch->device) {
        if (batch->uploaded) status_free(device_event_wait(batch->device, batch->uploaded));
        status_free(device_synchronize(batch->device)); /* of a device that is lost nothing is awaited */
        device_release_pinned(batch->device, batch->host);
        device_release_pinned(batch->device, batch->host_nll);
        device_release(batch->device, batch->integers);
        device_release(batch->device, batch->floats);
        device_event_destroy(batch->device, batch->uploaded);
        device_event_destroy(batch->device, batch->used);
        device_event_destroy(batch->device, batch->counted);
    }
    *batch = (DeviceBatch){0};
}

Status device_batch_nll_start(DeviceBatch *batch) {
    TRY(device_download_later(batch->device, batch->host_nll, batch->nll.data, tensor_bytes(batch->nll)));
    batch->counting = true;
    return device_event_mark(batch->device, DEVICE_WORK, batch->counted);
}

Status device_batch_nll_sum(DeviceBatch *batch, double *sum) {
    int64_t n = batch->nll.shape[0];
    *sum = 0;
    if (!batch->counting) TRY(device_batch_nll_start(batch));
    TRY(device_event_wait(batch->device, batch->counted));
    for (int64_t i = 0; i < n; ++i) *sum += batch->host_nll[i];
    return STATUS_OK;
}
