/* The functions of kernels/cuda/cudnn_attention.h on the emulated GPU: attention in double precision over the tensors, lengths
 * and offsets that a plan is given, at the addresses at which cuDNN would look. A plan asks for the workspace that cuDNN's
 * older backward pass needs, uses all of it and all scratch, and refuses what cuDNN refuses. */
#include "tests/cuda_on_host/streams.h"

#include <cuda_bf16.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <vector>

extern "C" {
#include "kernels/cuda/cudnn_attention.h"
#include "tests/cuda_on_host/cudnn.h"
}

static bool present;
struct cudnnContext {
    cudaStream_t stream;
};

extern "C" void host_set_cudnn(bool value) { present = value; }

static cudnnStatus_t create(cudnnHandle_t *handle) {
    *handle = (cudnnHandle_t)calloc(1, sizeof **handle);
    return CUDNN_STATUS_SUCCESS;
}
static cudnnStatus_t destroy(cudnnHandle_t handle) {
    free(handle);
    return CUDNN_STATUS_SUCCESS;
}
static cudnnStatus_t set_stream(cudnnHandle_t handle, cudaStream_t stream) {
    handle->stream = stream;
    return CUDNN_STATUS_SUCCESS;
}
static cudnnStatus_t destroy_descriptor(cudnnBackendDescriptor_t descriptor) {
    free(descriptor);
    return CUDNN_STATUS_SUCCESS;
}

extern "C" Status cudnn_library_open(const char *name, CudnnLibrary **out) {
    *out = NULL;
    if (!present || strcmp(name, CUDNN_LIBRARY_NAME) != 0) FAIL("cuDNN is absent: the emulated GPU has none");
    TRY_ALLOC(*out = (CudnnLibrary *)calloc(1, sizeof **out));
    (*out)->version = 91900;
    (*out)->create = create;
    (*out)->destroy = destroy;
    (*out)->set_stream = set_stream;
    (*out)->destroy_descriptor = destroy_descriptor;
    return STATUS_OK;
}
extern "C" void cudnn_library_close(CudnnLibrary *library) { free(library); }
extern "C" void cudnn_library_version(const CudnnLibrary *, char *text, size_t bytes) { snprintf(text, bytes, "cuDNN stand-in"); }
extern "C" Status cudnn_status(const CudnnLibrary *, cudnnStatus_t, const char *, const char *, int) { return STATUS_OK; }
extern "C" Status cudnn_target_of_handle(const CudnnLibrary *, cudnnHandle_t, cudnnBackendDescriptor_t *out) {
    TRY_ALLOC(*out = malloc(1));
    return STATUS_OK;
}
extern "C" bool cudnn_repeats_backward(int capability) { return capability == 90; }

extern "C" Status cudnn_attention_plan_create(const CudnnLibrary *, cudnnBackendDescriptor_t, int capability,
                                              CudnnAttentionShape shape, int64_t most_workspace, CudnnAttentionPlan **out) {
    const int64_t scores = shape.sequences * shape.query_heads * shape.longest * shape.longest * 2;
    const int64_t bytes = 4096 + (shape.backward ? scores : 0);
    *out = NULL;
    if (shape.backward && !cudnn_repeats_backward(capability)) FAIL("no backward pass");
    if (bytes > most_workspace) FAIL("asks for %.1f MB of workspace", (double)bytes / 1e6);
    TRY_ALLOC(*out = (CudnnAttentionPlan *)calloc(1, sizeof **out));
    (*out)->shape = shape;
    (*out)->workspace_bytes = bytes;
    (*out)->engine = shape.backward ? 6 : 2;
    (*out)->ordered_dq = shape.backward;
    return STATUS_OK;
}
extern "C" void cudnn_attention_plan_destroy(CudnnAttentionPlan *plan) { free(plan); }

/* Everything a plan reads and writes when it runs. */
struct Call {
    CudnnAttentionShape shape;
    void *tensors[CUDNN_ATTENTION_TENSORS];
    void *workspace;
    int64_t workspace_bytes;
    double scale;
};

static const int32_t *integers(const Call &call, int place) { return (const int32_t *)call.tensors[place]; }

/* Element e of row t and head h of sequence s in a bf16 tensor whose sequences begin at the given offsets. */
static __nv_bfloat16 *element(const Call &call, int place, int offsets, int64_t s, int64_t heads, int64_t t, int64_t h) {
    return (__nv_bfloat16 *)call.tensors[place] + integers(call, offsets)[s] + (t * heads + h) * call.shape.head_dimension;
}
static double dot(const __nv_bfloat16 *a, const __nv_bfloat16 *b, int64_t count) {
    double sum = 0;
    for (int64_t e = 0; e < count; ++e) sum += (double)__bfloat162float(a[e]) * __bfloat162float(b[e]);
    return sum;
}
static void add(std::vector<double> &sum, int64_t row, double factor, const __nv_bfloat16 *b, int64_t count) {
    for (int64_t e = 0; e < count; ++e) sum[(size_t)(row * count + e)] += factor * __bfloat162float(b[e]);
}
static void store(__nv_bfloat16 *to, const std::vector<double> &from, int64_t row, int64_t count) {
    for (int64_t e = 0; e < count; ++e) to[e] = __float2bfloat16_rn((float)from[(size_t)(row * count + e)]);
}

static void forward_head(const Call &call, int64_t s, int64_t h) {
    const int64_t H = call.shape.query_heads, G = call.shape.key_heads, E = call.shape.head_dimension, g = h / (H / G);
    const int64_t length = integers(call, CUDNN_LENGTHS_Q)[s];
    float *lse = (float *)call.tensors[CUDNN_LSE] + integers(call, CUDNN_OFFSETS_LSE)[s];
    for (int64_t i = 0; i < length; ++i) {
        const int64_t seen = call.shape.causal ? i + 1 : integers(call, CUDNN_LENGTHS_K)[s];
        std::vector<double> score((size_t)seen), out((size_t)E, 0);
        double largest = -INFINITY, sum = 0;
        for (int64_t j = 0; j < seen; ++j) {
            score[(size_t)j] = call.scale * dot(element(call, CUDNN_Q, CUDNN_OFFSETS_Q, s, H, i, h),
                                                element(call, CUDNN_K, CUDNN_OFFSETS_K, s, G, j, g), E);
            largest = fmax(largest, score[(size_t)j]);
        }
        for (double x : score) sum += exp(x - largest);
        for (int64_t j = 0; j < seen; ++j)
            add(out, 0, exp(score[(size_t)j] - largest) / sum, element(call, CUDNN_V, CUDNN_OFFSETS_K, s, G, j, g), E);
        store(element(call, CUDNN_OUT, CUDNN_OFFSETS_Q, s, H, i, h), out, 0, E);
        lse[i * H + h] = (float)(largest + log(sum));
    }
}

static void backward_heads(const Call &call, int64_t s, int64_t g) {
    const int64_t H = call.shape.query_heads, G = call.shape.key_heads, E = call.shape.head_dimension;
    const int64_t length = integers(call, CUDNN_LENGTHS_Q)[s];
    const float *lse = (const float *)call.tensors[CUDNN_LSE] + integers(call, CUDNN_OFFSETS_LSE)[s];
    std::vector<double> dk((size_t)(length * E), 0), dv((size_t)(length * E), 0);
    for (int64_t h = g * (H / G); h < (g + 1) * (H / G); ++h)
        for (int64_t i = 0; i < length; ++i) {
            const __nv_bfloat16 *q = element(call, CUDNN_Q, CUDNN_OFFSETS_Q, s, H, i, h);
            const __nv_bfloat16 *dout = element(call, CUDNN_DOUT, CUDNN_OFFSETS_Q, s, H, i, h);
            const double delta = dot(dout, element(call, CUDNN_OUT, CUDNN_OFFSETS_Q, s, H, i, h), E);
            std::vector<double> dq((size_t)E, 0);
            for (int64_t j = 0; j < (call.shape.causal ? i + 1 : length); ++j) {
                const __nv_bfloat16 *k = element(call, CUDNN_K, CUDNN_OFFSETS_K, s, G, j, g);
                const double p = exp(call.scale * dot(q, k, E) - lse[i * H + h]);
                const double ds = call.scale * p * (dot(dout, element(call, CUDNN_V, CUDNN_OFFSETS_K, s, G, j, g), E) - delta);
                add(dq, 0, ds, k, E);
                add(dk, j, ds, q, E);
                add(dv, j, p, dout, E);
            }
            store(element(call, CUDNN_DQ, CUDNN_OFFSETS_Q, s, H, i, h), dq, 0, E);
        }
    for (int64_t j = 0; j < length; ++j) {
        store(element(call, CUDNN_DK, CUDNN_OFFSETS_K, s, G, j, g), dk, j, E);
        store(element(call, CUDNN_DV, CUDNN_OFFSETS_K, s, G, j, g), dv, j, E);
    }
}

/* What is in the scratch afterwards is of no use to anybody. */
static void spoil_scratch(const Call &call) {
    const int64_t rows = integers(call, CUDNN_OFFSETS_LSE)[call.shape.sequences];
    const size_t heads = (size_t)(rows * call.shape.head_dimension) * sizeof(float);
    memset(call.workspace, 0xff, (size_t)call.workspace_bytes);
    if (!call.shape.backward) return;
    memset(call.tensors[CUDNN_DELTA], 0xff, (size_t)rows * sizeof(float));
    memset(call.tensors[CUDNN_DQ_SUM], 0xff, heads);
    if (call.shape.query_heads == call.shape.key_heads) return;
    memset(call.tensors[CUDNN_DK_HEADS], 0xff, heads);
    memset(call.tensors[CUDNN_DV_HEADS], 0xff, heads);
}

static void run(const Call &call) {
    HostMemoryAccess access;
    spoil_scratch(call);
    for (int64_t s = 0; s < call.shape.sequences; ++s)
        if (call.shape.backward)
            for (int64_t g = 0; g < call.shape.key_heads; ++g) backward_heads(call, s, g);
        else
            for (int64_t h = 0; h < call.shape.query_heads; ++h) forward_head(call, s, h);
}

extern "C" Status cudnn_attention_plan_run(const CudnnAttentionPlan *plan, cudnnHandle_t handle,
                                           void *const tensors[CUDNN_ATTENTION_TENSORS], float scale, void *workspace) {
    Call call = {plan->shape, {}, workspace, plan->workspace_bytes, scale};
    memcpy(call.tensors, tensors, sizeof call.tensors);
    for (int place : {CUDNN_Q, CUDNN_K, CUDNN_V, CUDNN_OUT, CUDNN_LSE, CUDNN_LENGTHS_Q, CUDNN_LENGTHS_K, CUDNN_OFFSETS_Q,
                      CUDNN_OFFSETS_K, CUDNN_OFFSETS_LSE})
        if ((uintptr_t)tensors[place] % 16 || !tensors[place]) FAIL("cuDNN: tensor %d lies at %p", place, tensors[place]);
    host_stream_issue(handle->stream, [call] { run(call); });
    return STATUS_OK;
}
