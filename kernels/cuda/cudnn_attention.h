/* Attention over packed sequences as cuDNN runs it: the operation graphs, and plans that execute them.
 *
 * cuDNN recognises attention by the shape of a graph of small operations; the graphs built here are the formulas of
 * kernels/ops.h. A plan holds for a shape, and for every batch of at most so many and so long sequences: the sequences' own
 * lengths and offsets are read from device memory when it runs. */
#ifndef KERNELS_CUDA_CUDNN_ATTENTION_H
#define KERNELS_CUDA_CUDNN_ATTENTION_H

#include "kernels/cuda/cudnn_graph.h"

/* T tokens, S sequences, H query heads, G key heads, E head dimension. */
typedef struct CudnnAttentionShape {
    int64_t sequences, longest; /* both are upper bounds */
    int64_t query_heads, key_heads, head_dimension;
    bool causal, backward;
} CudnnAttentionShape;

/* The tensors of a graph, by their places in the variant pack. bf16 but for the statistics, the scale and the integers. */
typedef enum CudnnAttentionTensor {
    CUDNN_Q = 1,       /* [T,H,E] */
    CUDNN_K,           /* [T,G,E] */
    CUDNN_V,           /* [T,G,E] */
    CUDNN_OUT,         /* [T,H,E] */
    CUDNN_LSE,         /* [T,H] fp32: natural logarithm of the sum of exponentials; the transpose of ours */
    CUDNN_SCALE,       /* float, host; set by the run, like the other two host numbers */
    CUDNN_LENGTHS_Q,   /* [S] int32 */
    CUDNN_LENGTHS_K,   /* [S] int32, the same numbers */
    CUDNN_OFFSETS_Q,   /* [S+1] int32: first element of each sequence in a [T,H,E] tensor */
    CUDNN_OFFSETS_K,   /* the same for [T,G,E] */
    CUDNN_OFFSETS_LSE, /* the same for [T,H] */
    CUDNN_MASKED,      /* float, host: minus infinity */
    CUDNN_DOUT,        /* [T,H,E]; from here on backward only */
    CUDNN_DQ,          /* [T,H,E] */
    CUDNN_DK,          /* [T,G,E] */
    CUDNN_DV,          /* [T,G,E] */
    CUDNN_ONE,         /* float, host: 1 */
    CUDNN_DELTA,       /* [T,H] fp32 scratch: dout . out */
    CUDNN_DK_HEADS,    /* [T,H,E] scratch: dk before the sum over the query heads of a key head; where H > G */
    CUDNN_DV_HEADS,    /* [T,H,E] scratch: the same of dv */
    CUDNN_DQ_SUM,      /* [T,H,E] fp32 scratch: dq before it is rounded; where the plan's ordered_dq */
    CUDNN_ATTENTION_TENSORS
} CudnnAttentionTensor;

typedef struct CudnnAttentionPlan {
    CudnnAttentionShape shape;
    CudnnGraph graph;
    cudnnBackendDescriptor_t plan;
    int64_t workspace_bytes; /* beside the scratch tensors above */
    int64_t engine;          /* cuDNN's number of it */
    bool ordered_dq;         /* see cudnn_attention.c */
} CudnnAttentionPlan;

/* Which GPU plans are made for: the one of a handle, or, without any GPU, one described by cuDNN's JSON. */
Status cudnn_target_of_handle(const CudnnLibrary *library, cudnnHandle_t handle, cudnnBackendDescriptor_t *out);
Status cudnn_target_of_json(const CudnnLibrary *library, const char *json, cudnnBackendDescriptor_t *out);

/* Whether the backward pass over packed sequences gives the same bits again and again on a GPU of such a compute capability. */
bool cudnn_repeats_backward(int capability);

/* Makes the plan of a shape for a GPU of compute capability 10 * major + minor: the first engine that cuDNN proposes whose
 * results do not vary from run to run and whose workspace is at most most_workspace bytes. An error says what cuDNN refused,
 * or how much it asks for. Freed with cudnn_attention_plan_destroy. */
Status cudnn_attention_plan_create(const CudnnLibrary *library, cudnnBackendDescriptor_t target, int capability,
                                   CudnnAttentionShape shape, int64_t most_workspace, CudnnAttentionPlan **out);
void cudnn_attention_plan_destroy(CudnnAttentionPlan *plan);

/* Issues the plan on the handle's stream. tensors: device addresses by place; those that the graph lacks are not read. */
Status cudnn_attention_plan_run(const CudnnAttentionPlan *plan, cudnnHandle_t handle,
                                void *const tensors[CUDNN_ATTENTION_TENSORS], float scale, void *workspace);

#endif
