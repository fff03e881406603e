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
    float *host_nll;     /* [M] after device_batch_nll_sum */
    /* Memory, kept from batch to batch. */
    Device *device;
    int32_t *host;
    void *integers, *floats;
    size_t integer_capacity, float_capacity; /* elements */
} DeviceBatch;

/* Zero-initialise, then set for every micro-batch; free at the end. The dropout key of a token is the low half of its
 * sample number. */
Status device_batch_set(DeviceBatch *batch, Device *device, const PackedBatch *packed);
void device_batch_free(DeviceBatch *batch);
/* Downloads nll into host_nll and adds it up in order, in double. */
Status device_batch_nll_sum(DeviceBatch *batch, double *sum);

#endif
