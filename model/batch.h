/* A packed micro-batch on the device, as the decoder and the loss read it. */
#ifndef MODEL_BATCH_H
#define MODEL_BATCH_H

#include "io/packed_batch.h"
#include "kernels/ops.h"

typedef struct DeviceBatch {
    SequenceLayout layout;
    Tensor ids;          /* [T] I32 */
    Tensor rows, labels; /* [M] I32: rows that predict, and what */
    Tensor nll;          /* [M] F32: filled by the loss */
    float *host_nll;     /* [M] after device_batch_nll_sum; pinned */
    /* Memory, kept from batch to batch. */
    Device *device;
    int32_t *host; /* pinned: the upload reads it */
    void *integers, *floats;
    size_t integer_capacity, float_capacity; /* elements */
    DeviceEvent *uploaded, *used, *counted;  /* the device has: the batch; no more need of it; copied nll to the host */
    bool counting;                           /* that copy has been issued */
} DeviceBatch;

/* Zero-initialise, then set for every micro-batch; free at the end. The dropout key of a token is the low half of its
 * sample number. */
Status device_batch_set(DeviceBatch *batch, Device *device, const PackedBatch *packed);
void device_batch_free(DeviceBatch *batch);
/* Memory for batches up to this size, so that none is allocated later. */
Status device_batch_reserve(DeviceBatch *batch, Device *device, int64_t tokens, int64_t sequences, int64_t labels);

/* device_batch_set in two halves, for a thread that works ahead: stage uploads beside the device's work, once the device has
 * no more need of what the batch held before; use lets the work wait for the upload. done follows the last work that reads the
 * batch. Calls for one batch must not overlap in time. */
Status device_batch_stage(DeviceBatch *batch, Device *device, const PackedBatch *packed);
Status device_batch_use(DeviceBatch *batch);
Status device_batch_done(DeviceBatch *batch);

/* Issues the copy of nll to the host, without waiting: what follows on the device need not wait for the host to read it. */
Status device_batch_nll_start(DeviceBatch *batch);
/* Waits for that copy (started here if nobody has) and adds nll up in order, in double. */
Status device_batch_nll_sum(DeviceBatch *batch, double *sum);

#endif
