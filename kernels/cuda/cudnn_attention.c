/* Which graphs cuDNN takes for attention stands in no reference; it is what NVIDIA's C++ frontend builds (nodes
 * scaled_dot_product_flash_attention, softmax and diagonal_band_mask of cudnn-frontend 1.32), with the numbers of its support
 * surface. tests/cudnn has cuDNN itself make plans of these graphs, without a GPU.
 *
 * Layouts. A tensor of T packed tokens is declared as [S sequences, heads, longest, columns] with the strides of one sequence
 * of [tokens, heads, columns]; sequence b begins at its ragged offset, in elements. K (forward) and K, V (backward) are
 * declared transposed, [S, heads, columns, longest], over the same memory. Rows and columns beyond a sequence's length are
 * masked, and neither read nor written. Intermediate scores are [S, H, longest, longest] and exist in no memory.
 *
 * Bits. In the plain backward graph dq is one product of all ds with k: cuDNN keeps ds, bf16, in a workspace of
 * S * H * longest^2 elements, and every sum has one order. The graph with dq_sum needs no such workspace, but adds the parts
 * of dq with atomics, unless an engine is asked to keep their order (choose_ordered). The numerical note
 * CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC does not tell them apart. */
#include "kernels/cuda/cudnn_attention.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ENGINE_CONFIGS = 8, FIRST_ORDERED_DQ = 92500 };

/* The tensors that the steps of a graph share. */
typedef struct AttentionGraph {
    CudnnGraph *graph;
    CudnnAttentionShape shape;
    CudnnTensor lengths_q, lengths_k, offsets_q, offsets_k, offsets_lse, scale, masked;
} AttentionGraph;

/* [B, heads, S, columns] over memory [T, heads, columns]: B sequences, each starting at its ragged offset. */
static CudnnLayout packed(const AttentionGraph *a, int64_t heads, int64_t columns) {
    const int64_t rows = a->shape.longest;
    return (CudnnLayout){{a->shape.sequences, heads, rows, columns}, {rows * heads * columns, columns, heads * columns, 1}};
}

static CudnnLayout transposed(CudnnLayout layout) {
    return (CudnnLayout){{layout.size[0], layout.size[1], layout.size[3], layout.size[2]},
                         {layout.stride[0], layout.stride[1], layout.stride[3], layout.stride[2]}};
}

/* [B, H, S, columns] of which nothing lies in memory. */
static CudnnLayout dense(const AttentionGraph *a, int64_t columns) {
    const int64_t heads = a->shape.query_heads, rows = a->shape.longest;
    return (CudnnLayout){{a->shape.sequences, heads, rows, columns}, {heads * rows * columns, rows * columns, columns, 1}};
}

/* Intermediate scores [B,H,S,S] and statistics [B,H,S,1]. */
static CudnnTensor scores(const AttentionGraph *a, cudnnDataType_t type) {
    return cudnn_graph_virtual(a->graph, type, dense(a, a->shape.longest), NULL);
}
static CudnnTensor statistics(const AttentionGraph *a) {
    return cudnn_graph_virtual(a->graph, CUDNN_DATA_FLOAT, dense(a, 1), NULL);
}

static CudnnTensor query_tensor(const AttentionGraph *a, int64_t uid) {
    return cudnn_graph_tensor(a->graph, uid, CUDNN_DATA_BFLOAT16, packed(a, a->shape.query_heads, a->shape.head_dimension),
                              a->offsets_q);
}
static CudnnTensor key_tensor(const AttentionGraph *a, int64_t uid, bool transpose) {
    const CudnnLayout layout = packed(a, a->shape.key_heads, a->shape.head_dimension);
    return cudnn_graph_tensor(a->graph, uid, CUDNN_DATA_BFLOAT16, transpose ? transposed(layout) : layout, a->offsets_k);
}
static CudnnTensor statistics_tensor(const AttentionGraph *a, int64_t uid) {
    return cudnn_graph_tensor(a->graph, uid, CUDNN_DATA_FLOAT, packed(a, a->shape.query_heads, 1), a->offsets_lse);
}

static CudnnTensor integers(CudnnGraph *graph, int64_t uid, int64_t count) {
    return cudnn_graph_tensor(graph, uid, CUDNN_DATA_INT32, (CudnnLayout){{count, 1, 1, 1}, {1, 1, 1, 1}}, NULL);
}

static AttentionGraph begin_graph(CudnnGraph *graph, CudnnAttentionShape shape) {
    AttentionGraph a = {.graph = graph, .shape = shape};
    a.lengths_q = integers(graph, CUDNN_LENGTHS_Q, shape.sequences);
    a.lengths_k = integers(graph, CUDNN_LENGTHS_K, shape.sequences);
    a.offsets_q = integers(graph, CUDNN_OFFSETS_Q, shape.sequences + 1);
    a.offsets_k = integers(graph, CUDNN_OFFSETS_K, shape.sequences + 1);
    a.offsets_lse = integers(graph, CUDNN_OFFSETS_LSE, shape.sequences + 1);
    a.scale = cudnn_graph_number(graph, CUDNN_SCALE);
    a.masked = cudnn_graph_number(graph, CUDNN_MASKED);
    return a;
}

static CudnnTensor arithmetic(const AttentionGraph *a, cudnnPointwiseMode_t mode, CudnnTensor x, CudnnTensor b, CudnnTensor y) {
    return cudnn_graph_pointwise(a->graph, mode, CUDNN_DATA_FLOAT, -1, x, b, NULL, y);
}
static CudnnTensor logical(const AttentionGraph *a, cudnnPointwiseMode_t mode, CudnnTensor x, CudnnTensor b) {
    return cudnn_graph_pointwise(a->graph, mode, CUDNN_DATA_BOOLEAN, -1, x, b, NULL, scores(a, CUDNN_DATA_BOOLEAN));
}
/* The row (axis 2) or column (axis 3) number of every score. */
static CudnnTensor index_along(const AttentionGraph *a, CudnnTensor x, int64_t axis, cudnnDataType_t precision) {
    return cudnn_graph_pointwise(a->graph, CUDNN_POINTWISE_GEN_INDEX, precision, axis, x, NULL, NULL,
                                 scores(a, CUDNN_DATA_INT32));
}
static CudnnTensor keep_where(const AttentionGraph *a, CudnnTensor mask, CudnnTensor x) {
    return cudnn_graph_pointwise(a->graph, CUDNN_POINTWISE_BINARY_SELECT, CUDNN_DATA_FLOAT, -1, x, a->masked, mask,
                                 scores(a, CUDNN_DATA_FLOAT));
}

/* Keeps the scores of a sequence's own rows and columns and, with a causal mask, of columns up to the row. */
static CudnnTensor mask(const AttentionGraph *a, CudnnTensor x) {
    CudnnTensor row = index_along(a, x, 2, CUDNN_DATA_INT32), column = index_along(a, x, 3, CUDNN_DATA_INT32);
    CudnnTensor own_row = logical(a, CUDNN_POINTWISE_CMP_LT, row, a->lengths_q);
    CudnnTensor own_column = logical(a, CUDNN_POINTWISE_CMP_LT, column, a->lengths_k);
    x = keep_where(a, logical(a, CUDNN_POINTWISE_LOGICAL_AND, own_row, own_column), x);
    if (!a->shape.causal) return x;
    row = index_along(a, x, 2, CUDNN_DATA_FLOAT);
    column = index_along(a, x, 3, CUDNN_DATA_FLOAT);
    return keep_where(a, logical(a, CUDNN_POINTWISE_CMP_GE, row, column), x);
}

/* scale * q k^T over the sequences' own rows and columns. */
static CudnnTensor scaled_scores(const AttentionGraph *a, CudnnTensor q, CudnnTensor k_transposed) {
    CudnnTensor s = cudnn_graph_matmul(a->graph, q, k_transposed, a->lengths_q, a->lengths_k, NULL, scores(a, CUDNN_DATA_FLOAT));
    return arithmetic(a, CUDNN_POINTWISE_MUL, s, a->scale, scores(a, CUDNN_DATA_FLOAT));
}

/* out = softmax(mask(scale * q k^T)) v, lse = max + log(sum(exp(x - max))). */
static void build_forward(CudnnGraph *graph, CudnnAttentionShape shape) {
    const AttentionGraph a = begin_graph(graph, shape);
    CudnnTensor q = query_tensor(&a, CUDNN_Q), k_transposed = key_tensor(&a, CUDNN_K, true), v = key_tensor(&a, CUDNN_V, false);
    CudnnTensor out = query_tensor(&a, CUDNN_OUT), lse = statistics_tensor(&a, CUDNN_LSE);

    CudnnTensor x = mask(&a, scaled_scores(&a, q, k_transposed));
    CudnnTensor maximum = cudnn_graph_reduce(graph, CUDNN_REDUCE_TENSOR_MAX, x, statistics(&a));
    CudnnTensor shifted = arithmetic(&a, CUDNN_POINTWISE_SUB, x, maximum, scores(&a, CUDNN_DATA_FLOAT));
    CudnnTensor exponential = arithmetic(&a, CUDNN_POINTWISE_EXP, shifted, NULL, scores(&a, CUDNN_DATA_FLOAT));
    CudnnTensor sum = cudnn_graph_reduce(graph, CUDNN_REDUCE_TENSOR_ADD, exponential, statistics(&a));
    CudnnTensor logarithm = arithmetic(&a, CUDNN_POINTWISE_LOG, sum, NULL, statistics(&a));
    arithmetic(&a, CUDNN_POINTWISE_ADD, maximum, logarithm, lse);
    CudnnTensor p = arithmetic(&a, CUDNN_POINTWISE_DIV, exponential, sum, scores(&a, CUDNN_DATA_BFLOAT16));
    cudnn_graph_matmul(graph, p, v, a.lengths_q, NULL, a.lengths_k, out);
}

/* A product per query head, and its sum over the query heads that share a key head. heads_uid: scratch for the former. */
static void key_gradient(const AttentionGraph *a, CudnnTensor weights, CudnnTensor rows, int64_t heads_uid,
                         CudnnTensor gradient) {
    if (a->shape.query_heads == a->shape.key_heads) {
        cudnn_graph_matmul(a->graph, weights, rows, a->lengths_k, NULL, a->lengths_q, gradient);
        return;
    }
    /* The offsets of the key heads' tensor are meant here: cuDNN multiplies them by H / G itself (the frontend's node does so).
     */
    CudnnTensor per_head = cudnn_graph_tensor(a->graph, heads_uid, CUDNN_DATA_BFLOAT16,
                                              packed(a, a->shape.query_heads, a->shape.head_dimension), a->offsets_k);
    cudnn_graph_matmul(a->graph, weights, rows, a->lengths_k, NULL, a->lengths_q, per_head);
    cudnn_graph_reduce(a->graph, CUDNN_REDUCE_TENSOR_ADD, per_head, gradient);
}

/* Scores seen transposed, in the type that the next product reads. */
static CudnnTensor transpose_scores(const AttentionGraph *a, CudnnTensor x) {
    return cudnn_graph_reshape(a->graph, x,
                               cudnn_graph_virtual(a->graph, CUDNN_DATA_BFLOAT16, transposed(dense(a, a->shape.longest)), NULL));
}

/* p = exp(mask(scale * q k^T - lse)), delta = rowsum(dout * out), ds = scale * p * (dout v^T - delta);
 * dv = p^T dout, dk = ds^T q, dq = ds k. */
static void build_backward(CudnnGraph *graph, CudnnAttentionShape shape, bool ordered_dq) {
    const AttentionGraph a = begin_graph(graph, shape);
    CudnnTensor q = query_tensor(&a, CUDNN_Q), out = query_tensor(&a, CUDNN_OUT), dout = query_tensor(&a, CUDNN_DOUT);
    CudnnTensor k_transposed = key_tensor(&a, CUDNN_K, true), v_transposed = key_tensor(&a, CUDNN_V, true);
    CudnnTensor lse = statistics_tensor(&a, CUDNN_LSE), delta = statistics_tensor(&a, CUDNN_DELTA);
    CudnnTensor dq = query_tensor(&a, CUDNN_DQ), dk = key_tensor(&a, CUDNN_DK, false), dv = key_tensor(&a, CUDNN_DV, false);

    CudnnTensor products =
        cudnn_graph_virtual(graph, CUDNN_DATA_FLOAT, packed(&a, shape.query_heads, shape.head_dimension), NULL);
    arithmetic(&a, CUDNN_POINTWISE_MUL, dout, out, products);
    CudnnTensor sum = cudnn_graph_reduce(graph, CUDNN_REDUCE_TENSOR_ADD, products, statistics(&a));
    arithmetic(&a, CUDNN_POINTWISE_MUL, sum, cudnn_graph_number(graph, CUDNN_ONE), delta);

    CudnnTensor x = scaled_scores(&a, q, k_transposed);
    x = mask(&a, arithmetic(&a, CUDNN_POINTWISE_SUB, x, lse, scores(&a, CUDNN_DATA_FLOAT)));
    CudnnTensor p = arithmetic(&a, CUDNN_POINTWISE_EXP, x, NULL, scores(&a, CUDNN_DATA_FLOAT));
    key_gradient(&a, transpose_scores(&a, p), dout, CUDNN_DV_HEADS, dv);

    CudnnTensor dp = cudnn_graph_matmul(graph, dout, v_transposed, a.lengths_q, a.lengths_k, NULL, scores(&a, CUDNN_DATA_FLOAT));
    dp = arithmetic(&a, CUDNN_POINTWISE_SUB, dp, delta, scores(&a, CUDNN_DATA_FLOAT));
    CudnnTensor ds = arithmetic(&a, CUDNN_POINTWISE_MUL, dp, p, scores(&a, CUDNN_DATA_FLOAT));
    ds = arithmetic(&a, CUDNN_POINTWISE_MUL, ds, a.scale, scores(&a, CUDNN_DATA_FLOAT));
    key_gradient(&a, transpose_scores(&a, ds), q, CUDNN_DK_HEADS, dk);

    CudnnTensor k = cudnn_graph_reshape(
        graph, k_transposed,
        cudnn_graph_virtual(graph, CUDNN_DATA_BFLOAT16, packed(&a, shape.key_heads, shape.head_dimension), a.offsets_k));
    if (!ordered_dq) {
        cudnn_graph_matmul(graph, ds, k, a.lengths_q, NULL, a.lengths_k, dq);
        return;
    }
    CudnnTensor dq_sum = cudnn_graph_tensor(graph, CUDNN_DQ_SUM, CUDNN_DATA_FLOAT,
                                            packed(&a, shape.query_heads, shape.head_dimension), a.offsets_q);
    cudnn_graph_matmul(graph, ds, k, a.lengths_q, NULL, a.lengths_k, dq_sum);
    arithmetic(&a, CUDNN_POINTWISE_IDENTITY, dq_sum, NULL, dq);
}

static Status target_of(const CudnnLibrary *library, cudnnBackendAttributeName_t attribute, cudnnBackendAttributeType_t type,
                        int64_t count, const void *value, cudnnBackendDescriptor_t *out) {
    cudnnBackendDescriptor_t target = NULL;
    *out = NULL;
    TRY_CUDNN(library, create_descriptor(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, &target));
    cudnnStatus_t result = library->set_attribute(target, attribute, type, count, value);
    if (result == CUDNN_STATUS_SUCCESS) result = library->finalize(target);
    Status status = cudnn_status(library, result, "describing the GPU", __FILE__, __LINE__);
    if (status)
        (void)library->destroy_descriptor(target);
    else
        *out = target;
    return status;
}

Status cudnn_target_of_handle(const CudnnLibrary *library, cudnnHandle_t handle, cudnnBackendDescriptor_t *out) {
    return target_of(library, CUDNN_ATTR_DEVICEPROP_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle, out);
}

Status cudnn_target_of_json(const CudnnLibrary *library, const char *json, cudnnBackendDescriptor_t *out) {
    return target_of(library, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, (int64_t)strlen(json) + 1, json, out);
}

/* Makes the execution plan of an engine configuration and takes it when its workspace is small enough. */
static Status finish_plan(CudnnAttentionPlan *plan, cudnnBackendDescriptor_t target, cudnnBackendDescriptor_t config,
                          int64_t most_workspace) {
    CudnnGraph *graph = &plan->graph;
    const CudnnLibrary *library = graph->library;
    int64_t count = 0, bytes = 0;
    cudnnBackendDescriptor_t descriptor = cudnn_graph_create(graph, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    cudnn_graph_set(graph, descriptor, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &config);
    cudnn_graph_set(graph, descriptor, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &target);
    cudnn_graph_finalize(graph, descriptor);
    TRY(cudnn_graph_take_error(graph));
    TRY_CUDNN(library, get_attribute(descriptor, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &count, &bytes));
    if (bytes > most_workspace)
        FAIL("cuDNN asks for %.1f MB of workspace, more than %.1f MB", (double)bytes / 1e6, (double)most_workspace / 1e6);
    cudnnBackendDescriptor_t engine = cudnn_graph_create(graph, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    TRY(cudnn_graph_take_error(graph));
    TRY_CUDNN(library, get_attribute(config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &count, &engine));
    TRY_CUDNN(library, get_attribute(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &count, &plan->engine));
    plan->plan = descriptor;
    plan->workspace_bytes = bytes;
    return STATUS_OK;
}

/* The first usable one of the configurations that cuDNN proposes, the fastest first. */
static Status choose_proposed(CudnnAttentionPlan *plan, cudnnBackendDescriptor_t target, int64_t most_workspace) {
    CudnnGraph *graph = &plan->graph;
    const cudnnBackendHeurMode_t mode = CUDNN_HEUR_MODE_A;
    cudnnBackendDescriptor_t configs[ENGINE_CONFIGS];
    int64_t count = 0;
    cudnnBackendDescriptor_t heuristics = cudnn_graph_create(graph, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    cudnn_graph_set(graph, heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &graph->graph);
    cudnn_graph_set(graph, heuristics, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    cudnn_graph_set(graph, heuristics, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &target);
    cudnn_graph_finalize(graph, heuristics);
    for (int i = 0; i < ENGINE_CONFIGS; ++i) configs[i] = cudnn_graph_create(graph, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    TRY(cudnn_graph_take_error(graph));
    TRY_CUDNN(graph->library, get_attribute(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                            ENGINE_CONFIGS, &count, configs));
    Status status = FAILURE("cuDNN has no engine for this shape on this GPU");
    for (int64_t i = 0; status && i < count && i < ENGINE_CONFIGS; ++i) {
        status_free(status);
        status = finish_plan(plan, target, configs[i], most_workspace);
    }
    return status;
}

/* The Hopper engine that adds the parts of dq in the order of the keys (since cuDNN 9.25). Its number and the knobs that ask
 * for it are facts of the library; cuDNN checks them when the configuration is finalized. */
static Status choose_ordered(CudnnAttentionPlan *plan, cudnnBackendDescriptor_t target, int64_t most_workspace) {
    static const struct {
        cudnnBackendKnobType_t type;
        int64_t value;
    } knobs[] = {{CUDNN_KNOB_TYPE_TILE_M, 2},   {CUDNN_KNOB_TYPE_TILE_N, 1},     {CUDNN_KNOB_TYPE_KERNEL_CFG, 2},
                 {CUDNN_KNOB_TYPE_STREAM_K, 0}, {CUDNN_KNOB_TYPE_TILE_CGA_M, 0}, {CUDNN_KNOB_TYPE_STAGES, 4}};
    enum { KNOBS = sizeof knobs / sizeof *knobs };
    CudnnGraph *graph = &plan->graph;
    const int64_t number = 6;
    cudnnBackendDescriptor_t choices[KNOBS];
    for (int i = 0; i < KNOBS; ++i) {
        choices[i] = cudnn_graph_create(graph, CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR);
        cudnn_graph_set(graph, choices[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, &knobs[i].type);
        cudnn_graph_set(graph, choices[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, 1, &knobs[i].value);
        cudnn_graph_finalize(graph, choices[i]);
    }
    cudnnBackendDescriptor_t engine = cudnn_graph_create(graph, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    cudnn_graph_set(graph, engine, CUDNN_ATTR_ENGINE_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &graph->graph);
    cudnn_graph_set(graph, engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &number);
    cudnn_graph_set(graph, engine, CUDNN_ATTR_ENGINE_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &target);
    cudnn_graph_finalize(graph, engine);
    cudnnBackendDescriptor_t config = cudnn_graph_create(graph, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    cudnn_graph_set(graph, config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &engine);
    cudnn_graph_set(graph, config, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, CUDNN_TYPE_BACKEND_DESCRIPTOR, KNOBS, choices);
    cudnn_graph_finalize(graph, config);
    TRY(cudnn_graph_take_error(graph));
    return finish_plan(plan, target, config, most_workspace);
}

static Status make_plan(const CudnnLibrary *library, cudnnBackendDescriptor_t target, CudnnAttentionShape shape, bool ordered_dq,
                        int64_t most_workspace, CudnnAttentionPlan **out) {
    CudnnAttentionPlan *plan;
    *out = NULL;
    TRY_ALLOC(plan = calloc(1, sizeof *plan));
    plan->shape = shape;
    plan->ordered_dq = ordered_dq;
    cudnn_graph_init(&plan->graph, library);
    if (shape.backward)
        build_backward(&plan->graph, shape, ordered_dq);
    else
        build_forward(&plan->graph, shape);
    Status status = cudnn_graph_finish(&plan->graph);
    if (!status)
        status = ordered_dq ? choose_ordered(plan, target, most_workspace) : choose_proposed(plan, target, most_workspace);
    if (status)
        cudnn_attention_plan_destroy(plan);
    else
        *out = plan;
    return status;
}

/* Elsewhere cuDNN adds the parts of dq with atomics when the layout is ragged. */
bool cudnn_repeats_backward(int capability) { return capability == 90; }

Status cudnn_attention_plan_create(const CudnnLibrary *library, cudnnBackendDescriptor_t target, int capability,
                                   CudnnAttentionShape shape, int64_t most_workspace, CudnnAttentionPlan **out) {
    *out = NULL;
    if (shape.backward && !cudnn_repeats_backward(capability))
        FAIL("cuDNN's backward pass over packed sequences repeats its bits on compute capability 9.0 only, this GPU has %d.%d",
             capability / 10, capability % 10);
    if (shape.backward && library->version >= FIRST_ORDERED_DQ) {
        Status status = make_plan(library, target, shape, true, most_workspace, out);
        if (!status) return STATUS_OK;
        status_free(status);
    }
    return make_plan(library, target, shape, false, most_workspace, out);
}

void cudnn_attention_plan_destroy(CudnnAttentionPlan *plan) {
    if (!plan) return;
    cudnn_graph_close(&plan->graph);
    free(plan);
}

static bool has_tensor(const CudnnAttentionPlan *plan, int place) {
    if (place == CUDNN_DQ_SUM) return plan->ordered_dq;
    if (place == CUDNN_DK_HEADS || place == CUDNN_DV_HEADS)
        return plan->shape.backward && plan->shape.query_heads != plan->shape.key_heads;
    return plan->shape.backward || place < CUDNN_DOUT;
}

Status cudnn_attention_plan_run(const CudnnAttentionPlan *plan, cudnnHandle_t handle,
                                void *const tensors[CUDNN_ATTENTION_TENSORS], float scale, void *workspace) {
    const CudnnLibrary *library = plan->graph.library;
    float one = 1, masked = -INFINITY;
    int64_t places[CUDNN_ATTENTION_TENSORS], count = 0;
    void *addresses[CUDNN_ATTENTION_TENSORS];
    for (int place = CUDNN_Q; place < CUDNN_ATTENTION_TENSORS; ++place) {
        if (!has_tensor(plan, place)) continue;
        void *address = tensors[place];
        if (place == CUDNN_SCALE) address = &scale;
        if (place == CUDNN_MASKED) address = &masked;
        if (place == CUDNN_ONE) address = &one;
        places[count] = place;
        addresses[count++] = address;
    }
    cudnnBackendDescriptor_t pack = NULL;
    TRY_CUDNN(library, create_descriptor(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &pack));
    cudnnStatus_t result = library->set_attribute(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, count, places);
    if (result == CUDNN_STATUS_SUCCESS)
        result = library->set_attribute(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, count, addresses);
    if (result == CUDNN_STATUS_SUCCESS)
        result = library->set_attribute(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace);
    if (result == CUDNN_STATUS_SUCCESS) result = library->finalize(pack);
    if (result == CUDNN_STATUS_SUCCESS) result = library->execute(handle, plan->plan, pack);
    Status status =
        cudnn_status(library, result, plan->shape.backward ? "attention backward" : "attention forward", __FILE__, __LINE__);
    (void)library->destroy_descriptor(pack);
    return status;
}
