#include "model/indices.h"

#include <string.h>

Status indices_allocate(Tape *tape, int64_t count, int32_t **host) {
    void *memory;
    TRY(tape_host_allocate(tape, (size_t)(count + 1) * sizeof **host, &memory));
    *host = memory;
    return STATUS_OK;
}

Status indices_upload(Tape *tape, const int32_t *host, int64_t count, Tensor *out) {
    Value *value;
    TRY(tape_value(tape, DTYPE_I32, 1, &count, false, &value));
    *out = value->data;
    if (count == 0) return STATUS_OK;
    return device_upload(tape_device(tape), out->data, host, (size_t)count * sizeof *host);
}

static Status fill_positions(Tape *tape, int64_t sequences, const int32_t *offsets, const int32_t **out) {
    int32_t *positions;
    TRY(indices_allocate(tape, offsets[sequences], &positions));
    for (int64_t s = 0; s < sequences; ++s)
        for (int32_t t = offsets[s]; t < offsets[s + 1]; ++t) positions[t] = t - offsets[s];
    *out = positions;
    return STATUS_OK;
}

Status layout_upload(Tape *tape, int64_t sequences, const int32_t *host_offsets, const int32_t *positions,
                     const SequenceLayout **out) {
    Tensor device_offsets, device_positions;
    void *memory;
    if (!positions) TRY(fill_positions(tape, sequences, host_offsets, &positions));
    TRY(tape_host_allocate(tape, sizeof **out, &memory));
    TRY(indices_upload(tape, host_offsets, sequences + 1, &device_offsets));
    TRY(indices_upload(tape, positions, host_offsets[sequences], &device_positions));
    SequenceLayout *layout = memory;
    *layout = (SequenceLayout){.tokens = host_offsets[sequences],
                               .sequences = sequences,
                               .offsets = device_offsets.data,
                               .host_offsets = host_offsets,
                               .positions = device_positions.data,
                               .sample_of_token = device_positions.data};
    for (int64_t s = 0; s < sequences; ++s)
        if (host_offsets[s + 1] - host_offsets[s] > layout->longest) layout->longest = host_offsets[s + 1] - host_offsets[s];
    *out = layout;
    return STATUS_OK;
}
