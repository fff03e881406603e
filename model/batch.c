#include "model/batch.h"

#include <stdlib.h>
#include <string.h>

static Status grow(DeviceBatch *batch, size_t integers, size_t floats) {
    if (integers > batch->integer_capacity) {
        int32_t *host;
        TRY_ALLOC(host = realloc(batch->host, integers * sizeof *host));
        batch->host = host;
        if (!device_is_host(batch->device)) {
            device_release(batch->device, batch->integers);
            batch->integers = NULL;
            TRY(device_allocate(batch->device, integers * sizeof *host, &batch->integers));
        }
        batch->integer_capacity = integers;
    }
    if (floats > batch->float_capacity) {
        float *host;
        TRY_ALLOC(host = realloc(batch->host_nll, floats * sizeof *host));
        batch->host_nll = host;
        device_release(batch->device, batch->floats);
        batch->floats = NULL;
        TRY(device_allocate(batch->device, floats * sizeof *host, &batch->floats));
        batch->float_capacity = floats;
    }
    return STATUS_OK;
}

/* Appends count integers to the staging array; returns their place. */
static size_t stage(DeviceBatch *batch, size_t *used, const int32_t *values, int64_t count) {
    size_t place = *used;
    if (count > 0) memcpy(batch->host + place, values, (size_t)count * sizeof *values);
    *used += (size_t)count;
    return place;
}

Status device_batch_set(DeviceBatch *batch, Device *device, const PackedBatch *packed) {
    batch->device = device;
    int64_t tokens = packed->tokens, labels = packed->label_count;
    size_t used = 0;
    TRY(grow(batch, (size_t)(3 * tokens + packed->sequences + 1 + 2 * labels), (size_t)labels));
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
        TRY(device_upload(device, base, batch->host, used * sizeof *base));
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
    return STATUS_OK;
}

void device_batch_free(DeviceBatch *batch) {
    free(batch->host);
    free(batch->host_nll);
    if (batch->device) {
        device_release(batch->device, batch->integers);
        device_release(batch->device, batch->floats);
    }
    *batch = (DeviceBatch){0};
}

Status device_batch_nll_sum(DeviceBatch *batch, double *sum) {
    int64_t n = batch->nll.shape[0];
    *sum = 0;
    if (n == 0) return STATUS_OK;
    TRY(device_download(batch->device, batch->host_nll, batch->nll.data, (size_t)n * sizeof *batch->host_nll));
    for (int64_t i = 0; i < n; ++i) *sum += batch->host_nll[i];
    return STATUS_OK;
}
