/* Builds an operation graph of cuDNN's backend API: tensors, then operations on them, then the graph.
 *
 * Errors latch: after the first one every function does nothing and returns NULL, and cudnn_graph_finish reports it. So a
 * graph reads as its formulas do. All descriptors belong to the graph and end with it. */
#ifndef KERNELS_CUDA_CUDNN_GRAPH_H
#define KERNELS_CUDA_CUDNN_GRAPH_H

#include "kernels/cuda/cudnn_library.h"

#include <stdbool.h>

enum { CUDNN_GRAPH_DESCRIPTORS = 256, CUDNN_GRAPH_OPERATIONS = 48 };

typedef cudnnBackendDescriptor_t CudnnTensor;

typedef struct CudnnGraph {
    const CudnnLibrary *library;
    Status status;
    int count, operation_count;
    int64_t next_virtual; /* unique id of the next tensor that has no memory */
    cudnnBackendDescriptor_t descriptors[CUDNN_GRAPH_DESCRIPTORS];
    cudnnBackendDescriptor_t operations[CUDNN_GRAPH_OPERATIONS];
    cudnnBackendDescriptor_t graph; /* set by cudnn_graph_finish */
} CudnnGraph;

/* Four dimensions, and the elements between neighbours in each. */
typedef struct CudnnLayout {
    int64_t size[4], stride[4];
} CudnnLayout;

void cudnn_graph_init(CudnnGraph *graph, const CudnnLibrary *library);
/* Destroys all descriptors, also after an error. */
void cudnn_graph_close(CudnnGraph *graph);

/* A tensor in device memory, named by uid (1 to 99) in the variant pack. ragged: of [sequences + 1] element offsets, where
 * sequence b begins at offset b instead of b * stride[0]; NULL: none. */
CudnnTensor cudnn_graph_tensor(CudnnGraph *graph, int64_t uid, cudnnDataType_t type, CudnnLayout layout, CudnnTensor ragged);
/* One fp32 number in host memory, read when the graph runs. */
CudnnTensor cudnn_graph_number(CudnnGraph *graph, int64_t uid);
/* An intermediate result, which cuDNN keeps where it likes. */
CudnnTensor cudnn_graph_virtual(CudnnGraph *graph, cudnnDataType_t type, CudnnLayout layout, CudnnTensor ragged);

/* y = mode(x), mode(x, b), or select(t, x, b); absent operands are NULL. precision: of the arithmetic. axis: of GEN_INDEX,
 * else -1. Each returns y. */
CudnnTensor cudnn_graph_pointwise(CudnnGraph *graph, cudnnPointwiseMode_t mode, cudnnDataType_t precision, int64_t axis,
                                  CudnnTensor x, CudnnTensor b, CudnnTensor t, CudnnTensor y);
/* c = a b over the last two dimensions, in fp32; m, n, k: per-sequence sizes in the place of the tensors' own, or NULL.
 * Heads of b are shared by groups of a's where b has fewer. */
CudnnTensor cudnn_graph_matmul(CudnnGraph *graph, CudnnTensor a, CudnnTensor b, CudnnTensor m, CudnnTensor n, CudnnTensor k,
                               CudnnTensor c);
/* y = x reduced over the dimensions in which y is smaller, in fp32. */
CudnnTensor cudnn_graph_reduce(CudnnGraph *graph, cudnnReduceTensorOp_t operation, CudnnTensor x, CudnnTensor y);
/* y = the elements of x seen with y's dimensions. */
CudnnTensor cudnn_graph_reshape(CudnnGraph *graph, CudnnTensor x, CudnnTensor y);

/* Any other descriptor that ends with the graph, its attributes and its finalization. */
cudnnBackendDescriptor_t cudnn_graph_create(CudnnGraph *graph, cudnnBackendDescriptorType_t type);
void cudnn_graph_set(CudnnGraph *graph, cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t attribute,
                     cudnnBackendAttributeType_t type, int64_t count, const void *values);
void cudnn_graph_finalize(CudnnGraph *graph, cudnnBackendDescriptor_t descriptor);

/* Makes the graph of all operations. */
Status cudnn_graph_finish(CudnnGraph *graph);
/* Hands over the first error, and lets the graph go on. */
Status cudnn_graph_take_error(CudnnGraph *graph);

#endif
