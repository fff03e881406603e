#include "trainer/loader.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

typedef struct Request {
    struct Request *next;
    int64_t *samples;
    int64_t count;
    PackedBatch batch;
    DeviceBatch *ready; /* one of the loader's; NULL without a device */
    Status status;
} Request;

typedef struct RequestQueue {
    Request *first, **end;
    int64_t count;
} RequestQueue;

struct Loader {
    TokenDataset *dataset;
    int capacity;
    /* On the device, in turn: those that wait, the one being made, the last two that were taken. One that was taken two calls
     * ago is free when the thread comes to it, because it begins a batch only when fewer than `capacity` wait. */
    Device *device;
    DeviceBatch *slots; /* [slot_count]; NULL without a device */
    int64_t slot_count, next_slot;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    RequestQueue asked, done; /* guarded by mutex */
    int64_t in_work;          /* taken from asked, not yet in done */
    bool stop;
    char *failure; /* message of the first error, once taken */
    int failure_class;
};

static void queue_init(RequestQueue *queue) { *queue = (RequestQueue){.end = &queue->first}; }

static void queue_push(RequestQueue *queue, Request *request) {
    request->next = NULL;
    *queue->end = request;
    queue->end = &request->next;
    ++queue->count;
}

static Request *queue_pop(RequestQueue *queue) {
    Request *request = queue->first;
    queue->first = request->next;
    if (!queue->first) queue->end = &queue->first;
    --queue->count;
    return request;
}

static void request_free(Request *request) {
    if (!request) return;
    packed_batch_free(&request->batch);
    status_free(request->status);
    free(request->samples);
    free(request);
}

typedef struct SampleBuffers {
    int32_t *input_ids, *labels;
    int64_t *ends;
} SampleBuffers;

static Status read_samples(TokenDataset *dataset, const Request *request, SampleBuffers *b) {
    TRY_ALLOC(b->ends = calloc((size_t)request->count + 1, sizeof *b->ends));
    int64_t tokens = 0;
    for (int64_t i = 0; i < request->count; ++i) {
        if (request->samples[i] < 0 || request->samples[i] >= token_dataset_samples(dataset))
            FAIL("sample %lld is not in the data set", (long long)request->samples[i]);
        tokens += token_dataset_length(dataset, request->samples[i]);
        b->ends[i] = tokens;
    }
    TRY_ALLOC(b->input_ids = calloc((size_t)tokens + 1, sizeof *b->input_ids));
    TRY_ALLOC(b->labels = calloc((size_t)tokens + 1, sizeof *b->labels));
    for (int64_t i = 0; i < request->count; ++i) {
        int64_t start = i ? b->ends[i - 1] : 0;
        TRY(token_dataset_read(dataset, request->samples[i], b->input_ids + start, b->labels + start));
    }
    return STATUS_OK;
}

static void load(Loader *loader, Request *request) {
    SampleBuffers buffers = {0};
    request->status = read_samples(loader->dataset, request, &buffers);
    if (!request->status)
        request->status = packed_batch_build(buffers.input_ids, buffers.labels, buffers.ends, request->samples, request->count,
                                             &request->batch);
    if (!request->status && loader->slots) {
        request->ready = &loader->slots[loader->next_slot++ % loader->slot_count];
        request->status = device_batch_stage(request->ready, loader->device, &request->batch);
    }
    free(buffers.input_ids);
    free(buffers.labels);
    free(buffers.ends);
}

static void *run(void *argument) {
    Loader *loader = argument;
    pthread_mutex_lock(&loader->mutex);
    while (!loader->stop) {
        if (!loader->asked.count || loader->done.count >= loader->capacity) {
            pthread_cond_wait(&loader->changed, &loader->mutex);
            continue;
        }
        Request *request = queue_pop(&loader->asked);
        loader->in_work = 1;
        pthread_mutex_unlock(&loader->mutex);
        load(loader, request);
        pthread_mutex_lock(&loader->mutex);
        loader->in_work = 0;
        queue_push(&loader->done, request);
        pthread_cond_broadcast(&loader->changed);
    }
    pthread_mutex_unlock(&loader->mutex);
    return NULL;
}

static void free_slots(Loader *loader) {
    for (int64_t i = 0; i < loader->slot_count; ++i) device_batch_free(&loader->slots[i]);
    free(loader->slots);
}

static Status make_slots(Loader *loader, LoaderTarget target) {
    if (!target.device) return STATUS_OK;
    loader->device = target.device;
    TRY_ALLOC(loader->slots = calloc((size_t)loader->capacity + 2, sizeof *loader->slots));
    loader->slot_count = loader->capacity + 2;
    for (int64_t i = 0; i < loader->slot_count; ++i)
        TRY(device_batch_reserve(&loader->slots[i], target.device, target.tokens, target.sequences, target.labels));
    return STATUS_OK;
}

static Status start(Loader *loader) {
    int error = pthread_create(&loader->thread, NULL, run, loader);
    if (error) FAIL("cannot start the loader thread: %s", strerror(error));
    return STATUS_OK;
}

static void free_loader(Loader *loader) {
    free_slots(loader);
    pthread_cond_destroy(&loader->changed);
    pthread_mutex_destroy(&loader->mutex);
    free(loader->failure);
    free(loader);
}

Status loader_create(TokenDataset *dataset, int capacity, LoaderTarget target, Loader **out) {
    *out = NULL;
    Loader *loader = calloc(1, sizeof *loader);
    TRY_ALLOC(loader);
    loader->dataset = dataset;
    loader->capacity = capacity > 0 ? capacity : 1;
    queue_init(&loader->asked);
    queue_init(&loader->done);
    pthread_mutex_init(&loader->mutex, NULL);
    pthread_cond_init(&loader->changed, NULL);
    Status status = make_slots(loader, target);
    if (!status) status = start(loader);
    if (status)
        free_loader(loader);
    else
        *out = loader;
    return status;
}

void loader_destroy(Loader *loader) {
    if (!loader) return;
    pthread_mutex_lock(&loader->mutex);
    loader->stop = true;
    pthread_cond_broadcast(&loader->changed);
    pthread_mutex_unlock(&loader->mutex);
    pthread_join(loader->thread, NULL);
    while (loader->asked.count) request_free(queue_pop(&loader->asked));
    while (loader->done.count) request_free(queue_pop(&loader->done));
    free_loader(loader);
}

Status loader_request(Loader *loader, const int64_t *samples, int64_t count) {
    Request *request = calloc(1, sizeof *request);
    TRY_ALLOC(request);
    request->count = count;
    request->samples = malloc(((size_t)count + 1) * sizeof *samples);
    if (!request->samples) {
        request_free(request);
        FAIL("out of memory: a request of %lld samples", (long long)count);
    }
    if (count) memcpy(request->samples, samples, (size_t)count * sizeof *samples);
    pthread_mutex_lock(&loader->mutex);
    queue_push(&loader->asked, request);
    pthread_cond_broadcast(&loader->changed);
    pthread_mutex_unlock(&loader->mutex);
    return STATUS_OK;
}

/* Remembered, because a step loop that went on after an error must not get batches of another step. */
static Status fail(Loader *loader, Request *request) {
    loader->failure_class = status_exit_code(request->status);
    loader->failure = strdup(status_message(request->status));
    Status status = request->status;
    request->status = STATUS_OK;
    return status;
}

Status loader_take(Loader *loader, PackedBatch *out) {
    DeviceBatch *ready;
    return loader_take_ready(loader, out, &ready);
}

Status loader_take_ready(Loader *loader, PackedBatch *out, DeviceBatch **ready) {
    *out = (PackedBatch){0};
    *ready = NULL;
    if (loader->failure_class)
        return status_new((StatusClass)loader->failure_class, __FILE__, __LINE__, "%s",
                          loader->failure ? loader->failure : "an earlier batch failed");
    pthread_mutex_lock(&loader->mutex);
    bool expected = loader->asked.count || loader->in_work || loader->done.count;
    while (expected && !loader->done.count) pthread_cond_wait(&loader->changed, &loader->mutex);
    Request *request = expected ? queue_pop(&loader->done) : NULL;
    pthread_cond_broadcast(&loader->changed);
    pthread_mutex_unlock(&loader->mutex);
    if (!request) FAIL("a micro-batch was taken that nobody asked for");
    Status status = STATUS_OK;
    if (request->status)
        status = fail(loader, request);
    else {
        *out = request->batch;
        *ready = request->ready;
        request->batch = (PackedBatch){0};
    }
    request_free(request);
    return status;
}
