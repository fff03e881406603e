/* Reads micro-batches ahead of the training step, in a thread of its own, and sends them to the device ahead of it too.
 *
 * The step loop asks for micro-batches (lists of samples) as far ahead as it likes and takes them in the same order; at most
 * `capacity` finished ones wait in memory. The data set belongs to the loader's thread until loader_destroy. */
#ifndef TRAINER_LOADER_H
#define TRAINER_LOADER_H

#include "io/dataset.h"
#include "io/packed_batch.h"
#include "model/batch.h"

typedef struct Loader Loader;

/* Where finished micro-batches go, and for what sizes memory is taken beforehand. device NULL: they stay on the host. */
typedef struct LoaderTarget {
    Device *device;
    int64_t tokens, sequences, labels;
} LoaderTarget;

/* capacity >= 1: finished micro-batches held at most. The target's device must outlive the loader. */
Status loader_create(TokenDataset *dataset, int capacity, LoaderTarget target, Loader **out);
void loader_destroy(Loader *loader); /* stops the thread, drops what waits; accepts NULL */
/* Asks for one micro-batch; samples [count] are copied. Never blocks. count 0 gives an empty batch. */
Status loader_request(Loader *loader, const int64_t *samples, int64_t count);
/* The oldest micro-batch asked for and not yet taken; waits for it. The caller frees it with packed_batch_free. An error of
 * the thread is returned by the call that would have got that batch, and by all later ones. */
Status loader_take(Loader *loader, PackedBatch *out);
/* The same, and the batch on the device, where its upload may still be under way: device_batch_use comes before its use and
 * device_batch_done after it. *ready is the loader's and valid until the next call but one: the loss of a batch can be read
 * when the work on the next one has been issued. NULL without a device. */
Status loader_take_ready(Loader *loader, PackedBatch *out, DeviceBatch **ready);

#endif
