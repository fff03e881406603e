/* Attention by cuDNN: what its plans (cudnn_attention.h) need around them.
 *
 * A plan is made for powers of two that bound the number of sequences and their length, so a run meets few of them. What a
 * plan reads of a batch, the sequences' lengths and offsets, is worked out once per batch on the GPU and kept for the layers
 * that follow. cuDNN has the statistics as [T,H]; they are transposed from and to our [H,T]. */
#include "kernels/cuda/attention.cuh"

#ifdef ADAMEM_HAVE_CUDNN

extern "C" {
#include "kernels/cuda/cudnn_attention.h"
}

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCHES = 4, LEAST_LENGTH = 64 };

/* Lengths and offsets of one batch for one shape of heads. */
struct PackedBatchNumbers {
    AttentionShape shape; /* of which the numbers of heads and their dimension count */
    int32_t *host_offsets;
    int64_t sequences, capacity, bound; /* room of host_offsets and of device; the plan's sequences */
    int32_t *device;                    /* lengths, then the offsets in q, in k and in the statistics: stride() apart */
};

/* A shape that was asked for: its plan, or why there is none. */
struct CudnnPlanEntry {
    CudnnAttentionShape shape;
    int64_t most_workspace;
    CudnnAttentionPlan *plan;
    char why[240];
};

struct CudnnAttention {
    CudnnLibrary *library;
    cudnnHandle_t handle;
    cudnnBackendDescriptor_t target;
    int capability;
    CudnnPlanEntry *entries;
    size_t count, capacity;
    PackedBatchNumbers batches[BATCHES];
    int next_batch;
    char name[80];
};

static int64_t power_of_two(int64_t least, int64_t n) {
    int64_t power = least;
    while (power < n) power *= 2;
    return power;
}

/* Integers between the arrays of a batch: whole 16 bytes. */
static int64_t stride(int64_t bound) { return (bound + 4) / 4 * 4; }

static Status open_handle(CudnnAttention *cudnn, int ordinal, cudaStream_t stream) {
    int major, minor;
    TRY_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, ordinal));
    TRY_CUDA(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, ordinal));
    cudnn->capability = 10 * major + minor;
    TRY(cudnn_library_open(CUDNN_LIBRARY_NAME, &cudnn->library));
    TRY_CUDNN(cudnn->library, create(&cudnn->handle));
    TRY_CUDNN(cudnn->library, set_stream(cudnn->handle, stream));
    return cudnn_target_of_handle(cudnn->library, cudnn->handle, &cudnn->target);
}

Status attention_cudnn_open(int ordinal, cudaStream_t stream, CudnnAttention **out, CudnnPasses *passes) {
    CudnnAttention *cudnn;
    *out = NULL;
    *passes = CUDNN_NO_PASS;
    TRY_ALLOC(cudnn = (CudnnAttention *)calloc(1, sizeof *cudnn));
    Status status = open_handle(cudnn, ordinal, stream);
    if (status) {
        attention_cudnn_close(cudnn);
        return status;
    }
    *out = cudnn;
    *passes = cudnn_repeats_backward(cudnn->capability) ? CUDNN_BOTH_PASSES : CUDNN_FORWARD_PASS;
    return STATUS_OK;
}

void attention_cudnn_close(CudnnAttention *cudnn) {
    if (!cudnn) return;
    for (size_t i = 0; i < cudnn->count; ++i) cudnn_attention_plan_destroy(cudnn->entries[i].plan);
    for (PackedBatchNumbers &batch : cudnn->batches) {
        (void)cudaFree(batch.device); /* waits for the work that reads it */
        free(batch.host_offsets);
    }
    if (cudnn->target) (void)cudnn->library->destroy_descriptor(cudnn->target);
    if (cudnn->handle) (void)cudnn->library->destroy(cudnn->handle);
    if (cudnn->library) cudnn_library_close(cudnn->library);
    free(cudnn->entries);
    free(cudnn);
}

static CudnnAttentionShape bounds_of(const AttentionOperands &o, bool backward) {
    CudnnAttentionShape shape;
    memset(&shape, 0, sizeof shape); /* compared as bytes */
    shape.sequences = power_of_two(1, o.layout->sequences);
    shape.longest = power_of_two(LEAST_LENGTH, o.layout->longest);
    shape.query_heads = o.shape.query_heads;
    shape.key_heads = o.shape.key_heads;
    shape.head_dimension = o.shape.head_dimension;
    shape.causal = o.shape.causal;
    shape.backward = backward;
    return shape;
}

/* The entry of a shape; NULL only without memory. */
static CudnnPlanEntry *find_entry(CudnnAttention *cudnn, const AttentionOperands &o, bool backward) {
    const CudnnAttentionShape shape = bounds_of(o, backward);
    const int64_t most = (int64_t)scratch_attention_cudnn(o.layout, o.shape, backward);
    for (size_t i = 0; i < cudnn->count; ++i) {
        CudnnPlanEntry *entry = &cudnn->entries[i];
        if (memcmp(&entry->shape, &shape, sizeof shape) != 0) continue;
        if (entry->plan ? entry->plan->workspace_bytes <= most : entry->most_workspace == most) return entry;
    }
    if (cudnn->count == cudnn->capacity) {
        const size_t capacity = cudnn->capacity ? 2 * cudnn->capacity : 32;
        CudnnPlanEntry *entries = (CudnnPlanEntry *)realloc(cudnn->entries, capacity * sizeof *entries);
        if (!entries) return NULL;
        cudnn->entries = entries;
        cudnn->capacity = capacity;
    }
    CudnnPlanEntry *entry = &cudnn->entries[cudnn->count++];
    memset(entry, 0, sizeof *entry);
    entry->shape = shape;
    entry->most_workspace = most;
    Status status = cudnn_attention_plan_create(cudnn->library, cudnn->target, cudnn->capability, shape, most, &entry->plan);
    if (status) snprintf(entry->why, sizeof entry->why, "%s", status_message(status));
    status_free(status);
    return entry;
}

bool attention_cudnn_takes(CudaContext *context, const AttentionOperands &o, bool backward, const char **why) {
    CudnnAttention *cudnn = context->cudnn;
    *why = "out of memory";
    if (o.layout->tokens * o.shape.query_heads * o.shape.head_dimension > INT32_MAX) {
        *why = "cuDNN counts elements in 32 bits";
        return false;
    }
    const CudnnPlanEntry *entry = find_entry(cudnn, o, backward);
    if (entry) *why = entry->plan ? NULL : entry->why;
    return entry && entry->plan;
}

const char *attention_cudnn_name(CudaContext *context, const AttentionOperands &o, bool backward) {
    CudnnAttention *cudnn = context->cudnn;
    const CudnnPlanEntry *entry = find_entry(cudnn, o, backward);
    char version[40];
    cudnn_library_version(cudnn->library, version, sizeof version);
    snprintf(cudnn->name, sizeof cudnn->name, "%s, engine %lld", version,
             entry && entry->plan ? (long long)entry->plan->engine : -1);
    return cudnn->name;
}

/* lengths[bound], then offsets in q, k and the statistics, [bound + 1] each. Sequences beyond the batch's are empty. */
__global__ void packed_batch_kernel(int32_t *__restrict__ numbers, const int32_t *__restrict__ offsets, int sequences, int bound,
                                    int stride, int query_heads, int key_heads, int head_dimension) {
    const int s = blockIdx.x * blockDim.x + threadIdx.x;
    if (s > bound) return;
    const int start = offsets[s < sequences ? s : sequences];
    if (s < bound) numbers[s] = offsets[s + 1 < sequences ? s + 1 : sequences] - start;
    numbers[stride + s] = start * query_heads * head_dimension;
    numbers[2 * stride + s] = start * key_heads * head_dimension;
    numbers[3 * stride + s] = start * query_heads;
}

/* y[i, j] = x[j, i] for x [rows, columns]. */
__global__ void transpose_kernel(float *__restrict__ y, const float *__restrict__ x, int64_t rows, int64_t columns) {
    const int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
    if (i < rows * columns) y[i] = x[i % rows * columns + i / rows];
}

static Status transpose(CudaContext *context, float *y, const float *x, int64_t rows, int64_t columns) {
    unsigned grid;
    TRY(linear_grid(__func__, rows * columns, 256, &grid));
    ADAMEM_LAUNCH(transpose_kernel, grid, 256, 0, context->stream, y, x, rows, columns);
    return STATUS_OK;
}

static bool describes(const PackedBatchNumbers &batch, const AttentionOperands &o, int64_t bound) {
    return batch.bound == bound && batch.sequences == o.layout->sequences && batch.shape.query_heads == o.shape.query_heads &&
           batch.shape.key_heads == o.shape.key_heads && batch.shape.head_dimension == o.shape.head_dimension &&
           memcmp(batch.host_offsets, o.layout->host_offsets, (size_t)(batch.sequences + 1) * sizeof(int32_t)) == 0;
}

static Status reserve_batch(PackedBatchNumbers *batch, int64_t bound) {
    if (bound <= batch->capacity) return STATUS_OK;
    TRY_CUDA(cudaFree(batch->device));
    free(batch->host_offsets);
    memset(batch, 0, sizeof *batch);
    TRY_ALLOC(batch->host_offsets = (int32_t *)malloc((size_t)(bound + 1) * sizeof(int32_t)));
    TRY_CUDA(cudaMalloc((void **)&batch->device, (size_t)(4 * stride(bound)) * sizeof(int32_t)));
    batch->capacity = bound;
    return STATUS_OK;
}

/* The numbers of the call's batch: those of an earlier layer, or new ones in the place of the oldest. */
static Status find_batch(CudaContext *context, const AttentionOperands &o, int64_t bound, const PackedBatchNumbers **out) {
    CudnnAttention *cudnn = context->cudnn;
    for (const PackedBatchNumbers &batch : cudnn->batches) {
        *out = &batch;
        if (describes(batch, o, bound)) return STATUS_OK;
    }
    PackedBatchNumbers *batch = &cudnn->batches[cudnn->next_batch];
    cudnn->next_batch = (cudnn->next_batch + 1) % BATCHES;
    batch->bound = 0;
    TRY(reserve_batch(batch, bound));
    ADAMEM_LAUNCH(packed_batch_kernel, (unsigned)(bound / 128 + 1), 128, 0, context->stream, batch->device, o.layout->offsets,
                  (int)o.layout->sequences, (int)bound, (int)stride(bound), (int)o.shape.query_heads, (int)o.shape.key_heads,
                  (int)o.shape.head_dimension);
    memcpy(batch->host_offsets, o.layout->host_offsets, (size_t)(o.layout->sequences + 1) * sizeof(int32_t));
    batch->shape = o.shape;
    batch->sequences = o.layout->sequences;
    batch->bound = bound;
    *out = batch;
    return STATUS_OK;
}

/* Hands out pieces of the op's scratch. */
static void *take(char **scratch, size_t bytes) {
    char *piece = *scratch;
    *scratch += scratch_round(bytes);
    return piece;
}

static Status fill_common(CudaContext *context, const AttentionOperands &o, int64_t bound,
                          void *tensors[CUDNN_ATTENTION_TENSORS]) {
    const PackedBatchNumbers *batch;
    TRY(find_batch(context, o, bound, &batch));
    tensors[CUDNN_Q] = o.q.data;
    tensors[CUDNN_K] = o.k.data;
    tensors[CUDNN_V] = o.v.data;
    tensors[CUDNN_OUT] = o.out.data;
    tensors[CUDNN_LENGTHS_Q] = tensors[CUDNN_LENGTHS_K] = batch->device;
    tensors[CUDNN_OFFSETS_Q] = batch->device + stride(bound);
    tensors[CUDNN_OFFSETS_K] = batch->device + 2 * stride(bound);
    tensors[CUDNN_OFFSETS_LSE] = batch->device + 3 * stride(bound);
    return STATUS_OK;
}

static Status plan_of(CudaContext *context, const AttentionOperands &o, bool backward, const CudnnAttentionPlan **out) {
    const CudnnPlanEntry *entry = find_entry(context->cudnn, o, backward);
    if (!entry || !entry->plan) FAIL("attention: cuDNN does not take this call: %s", entry ? entry->why : "out of memory");
    *out = entry->plan;
    return STATUS_OK;
}

Status attention_cudnn_forward(CudaContext *context, const AttentionOperands &o, void *scratch) {
    const CudnnAttentionPlan *plan;
    TRY(plan_of(context, o, false, &plan));
    void *tensors[CUDNN_ATTENTION_TENSORS] = {};
    char *memory = (char *)scratch;
    const int64_t rows = o.layout->tokens * o.shape.query_heads;
    TRY(fill_common(context, o, plan->shape.sequences, tensors));
    float *statistics = (float *)take(&memory, (size_t)rows * sizeof(float));
    tensors[CUDNN_LSE] = statistics;
    TRY(cudnn_attention_plan_run(plan, context->cudnn->handle, tensors, o.shape.scale, memory));
    return transpose(context, (float *)o.lse.data, statistics, o.layout->tokens, o.shape.query_heads);
}

Status attention_cudnn_backward(CudaContext *context, const AttentionOperands &o, void *scratch) {
    const CudnnAttentionPlan *plan;
    TRY(plan_of(context, o, true, &plan));
    void *tensors[CUDNN_ATTENTION_TENSORS] = {};
    char *memory = (char *)scratch;
    const int64_t rows = o.layout->tokens * o.shape.query_heads;
    const size_t heads = (size_t)(rows * o.shape.head_dimension) * sizeof(float);
    TRY(fill_common(context, o, plan->shape.sequences, tensors));
    float *statistics = (float *)take(&memory, (size_t)rows * sizeof(float));
    tensors[CUDNN_LSE] = statistics;
    tensors[CUDNN_DELTA] = take(&memory, (size_t)rows * sizeof(float));
    tensors[CUDNN_DQ_SUM] = take(&memory, heads);
    if (o.shape.query_heads > o.shape.key_heads) {
        tensors[CUDNN_DK_HEADS] = take(&memory, heads);
        tensors[CUDNN_DV_HEADS] = take(&memory, heads);
    }
    tensors[CUDNN_DOUT] = o.dout.data;
    tensors[CUDNN_DQ] = o.dq.data;
    tensors[CUDNN_DK] = o.dk.data;
    tensors[CUDNN_DV] = o.dv.data;
    TRY(transpose(context, statistics, (const float *)o.lse.data, o.shape.query_heads, o.layout->tokens));
    return cudnn_attention_plan_run(plan, context->cudnn->handle, tensors, o.shape.scale, memory);
}

#else

Status attention_cudnn_open(int ordinal, cudaStream_t stream, CudnnAttention **out, CudnnPasses *passes) {
    (void)ordinal, (void)stream;
    *out = NULL;
    *passes = CUDNN_NO_PASS;
    FAIL("this program was built without cuDNN's header");
}

void attention_cudnn_close(CudnnAttention *cudnn) { (void)cudnn; }

/* Never called: without a CudnnAttention no call is offered to cuDNN. */
bool attention_cudnn_takes(CudaContext *context, const AttentionOperands &operands, bool backward, const char **why) {
    (void)context, (void)operands, (void)backward;
    *why = "this program was built without cuDNN's header";
    return false;
}

const char *attention_cudnn_name(CudaContext *context, const AttentionOperands &operands, bool backward) {
    (void)context, (void)operands, (void)backward;
    return "no cuDNN";
}

Status attention_cudnn_forward(CudaContext *context, const AttentionOperands &operands, void *scratch) {
    (void)context, (void)operands, (void)scratch;
    FAIL("attention_forward: this program was built without cuDNN's header");
}

Status attention_cudnn_backward(CudaContext *context, const AttentionOperands &operands, void *scratch) {
    (void)context, (void)operands, (void)scratch;
    FAIL("attention_backward: this program was built without cuDNN's header");
}

#endif
