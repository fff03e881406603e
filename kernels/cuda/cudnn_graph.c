#include "kernels/cuda/cudnn_graph.h"

#include <string.h>

enum { FIRST_VIRTUAL_UID = 100, BYTE_ALIGNMENT = 16 };

void cudnn_graph_init(CudnnGraph *graph, const CudnnLibrary *library) {
    memset(graph, 0, sizeof *graph);
    graph->library = library;
    graph->next_virtual = FIRST_VIRTUAL_UID;
}

void cudnn_graph_close(CudnnGraph *graph) {
    for (int i = graph->count; i-- > 0;) (void)graph->library->destroy_descriptor(graph->descriptors[i]);
    graph->count = 0;
    status_free(graph->status);
    graph->status = STATUS_OK;
}

static void check(CudnnGraph *graph, cudnnStatus_t result, const char *what, int code) {
    if (result == CUDNN_STATUS_SUCCESS) return;
    graph->status = cudnn_status(graph->library, result, what, __FILE__, __LINE__);
    graph->status = status_prefix(graph->status, "descriptor or attribute %d", code);
}

cudnnBackendDescriptor_t cudnn_graph_create(CudnnGraph *graph, cudnnBackendDescriptorType_t type) {
    cudnnBackendDescriptor_t descriptor = NULL;
    if (graph->status) return NULL;
    if (graph->count == CUDNN_GRAPH_DESCRIPTORS) {
        graph->status = FAILURE("a cuDNN graph has more than %d descriptors", CUDNN_GRAPH_DESCRIPTORS);
        return NULL;
    }
    check(graph, graph->library->create_descriptor(type, &descriptor), "create", (int)type);
    if (descriptor) graph->descriptors[graph->count++] = descriptor;
    return descriptor;
}

void cudnn_graph_set(CudnnGraph *graph, cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t attribute,
                     cudnnBackendAttributeType_t type, int64_t count, const void *values) {
    if (graph->status) return;
    check(graph, graph->library->set_attribute(descriptor, attribute, type, count, values), "set", (int)attribute);
}

void cudnn_graph_finalize(CudnnGraph *graph, cudnnBackendDescriptor_t descriptor) {
    if (graph->status) return;
    check(graph, graph->library->finalize(descriptor), "finalize", graph->count);
}

static void set_descriptor(CudnnGraph *graph, cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t attribute,
                           cudnnBackendDescriptor_t value) {
    if (value) cudnn_graph_set(graph, descriptor, attribute, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

static void set_bool(CudnnGraph *graph, cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t attribute) {
    const bool value = true;
    cudnn_graph_set(graph, descriptor, attribute, CUDNN_TYPE_BOOLEAN, 1, &value);
}

/* All of a tensor but its finalization. */
static CudnnTensor begin_tensor(CudnnGraph *graph, int64_t uid, cudnnDataType_t type, CudnnLayout layout, CudnnTensor ragged) {
    const int64_t alignment = BYTE_ALIGNMENT;
    CudnnTensor tensor = cudnn_graph_create(graph, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    cudnn_graph_set(graph, tensor, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    cudnn_graph_set(graph, tensor, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, layout.size);
    cudnn_graph_set(graph, tensor, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, layout.stride);
    cudnn_graph_set(graph, tensor, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &uid);
    cudnn_graph_set(graph, tensor, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment);
    set_descriptor(graph, tensor, CUDNN_ATTR_TENSOR_RAGGED_OFFSET_DESC, ragged);
    return tensor;
}

CudnnTensor cudnn_graph_tensor(CudnnGraph *graph, int64_t uid, cudnnDataType_t type, CudnnLayout layout, CudnnTensor ragged) {
    CudnnTensor tensor = begin_tensor(graph, uid, type, layout, ragged);
    cudnn_graph_finalize(graph, tensor);
    return tensor;
}

CudnnTensor cudnn_graph_number(CudnnGraph *graph, int64_t uid) {
    CudnnTensor tensor = begin_tensor(graph, uid, CUDNN_DATA_FLOAT, (CudnnLayout){{1, 1, 1, 1}, {1, 1, 1, 1}}, NULL);
    set_bool(graph, tensor, CUDNN_ATTR_TENSOR_IS_BY_VALUE);
    cudnn_graph_finalize(graph, tensor);
    return tensor;
}

CudnnTensor cudnn_graph_virtual(CudnnGraph *graph, cudnnDataType_t type, CudnnLayout layout, CudnnTensor ragged) {
    CudnnTensor tensor = begin_tensor(graph, graph->next_virtual++, type, layout, ragged);
    set_bool(graph, tensor, CUDNN_ATTR_TENSOR_IS_VIRTUAL);
    cudnn_graph_finalize(graph, tensor);
    return tensor;
}

static void add_operation(CudnnGraph *graph, cudnnBackendDescriptor_t operation) {
    cudnn_graph_finalize(graph, operation);
    if (graph->status) return;
    if (graph->operation_count == CUDNN_GRAPH_OPERATIONS) {
        graph->status = FAILURE("a cuDNN graph has more than %d operations", CUDNN_GRAPH_OPERATIONS);
        return;
    }
    graph->operations[graph->operation_count++] = operation;
}

CudnnTensor cudnn_graph_pointwise(CudnnGraph *graph, cudnnPointwiseMode_t mode, cudnnDataType_t precision, int64_t axis,
                                  CudnnTensor x, CudnnTensor b, CudnnTensor t, CudnnTensor y) {
    cudnnBackendDescriptor_t pointwise = cudnn_graph_create(graph, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    cudnn_graph_set(graph, pointwise, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
    cudnn_graph_set(graph, pointwise, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &precision);
    if (axis >= 0) cudnn_graph_set(graph, pointwise, CUDNN_ATTR_POINTWISE_AXIS, CUDNN_TYPE_INT64, 1, &axis);
    cudnn_graph_finalize(graph, pointwise);
    cudnnBackendDescriptor_t operation = cudnn_graph_create(graph, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    set_descriptor(graph, operation, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, pointwise);
    set_descriptor(graph, operation, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x);
    set_descriptor(graph, operation, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b);
    set_descriptor(graph, operation, CUDNN_ATTR_OPERATION_POINTWISE_TDESC, t);
    set_descriptor(graph, operation, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
    add_operation(graph, operation);
    return y;
}

CudnnTensor cudnn_graph_matmul(CudnnGraph *graph, CudnnTensor a, CudnnTensor b, CudnnTensor m, CudnnTensor n, CudnnTensor k,
                               CudnnTensor c) {
    const cudnnDataType_t precision = CUDNN_DATA_FLOAT;
    cudnnBackendDescriptor_t matmul = cudnn_graph_create(graph, CUDNN_BACKEND_MATMUL_DESCRIPTOR);
    cudnn_graph_set(graph, matmul, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &precision);
    cudnn_graph_finalize(graph, matmul);
    cudnnBackendDescriptor_t operation = cudnn_graph_create(graph, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
    set_descriptor(graph, operation, CUDNN_ATTR_OPERATION_MATMUL_DESC, matmul);
    set_descriptor(graph, operation, CUDNN_ATTR_OPERATION_MATMUL_ADESC, a);
    set_descriptor(graph, operation, CUDNN_ATTR_OPERATION_MATMUL_BDESC, b);
    set_descriptor(graph, operation, CUDNN_ATTR_OPERATION_MATMUL_CDESC, c);
    set_descriptor(graph, operation, CUDNN_ATTR_OPERATION_MATMUL_GEMM_M_OVERRIDE_DESC, m);
    set_descriptor(graph, operation, CUDNN_ATTR_OPERATION_MATMUL_GEMM_N_OVERRIDE_DESC, n);
    set_descriptor(graph, operation, CUDNN_ATTR_OPERATION_MATMUL_GEMM_K_OVERRIDE_DESC, k);
    add_operation(graph, operation);
    return c;
}

CudnnTensor cudnn_graph_reduce(CudnnGraph *graph, cudnnReduceTensorOp_t reduction, CudnnTensor x, CudnnTensor y) {
    const cudnnDataType_t precision = CUDNN_DATA_FLOAT;
    cudnnBackendDescriptor_t descriptor = cudnn_graph_create(graph, CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
    cudnn_graph_set(graph, descriptor, CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1, &reduction);
    cudnn_graph_set(graph, descriptor, CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &precision);
    cudnn_graph_finalize(graph, descriptor);
    cudnnBackendDescriptor_t operation = cudnn_graph_create(graph, CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
    set_descriptor(graph, operation, CUDNN_ATTR_OPERATION_REDUCTION_DESC, descriptor);
    set_descriptor(graph, operation, CUDNN_ATTR_OPERATION_REDUCTION_XDESC, x);
    set_descriptor(graph, operation, CUDNN_ATTR_OPERATION_REDUCTION_YDESC, y);
    add_operation(graph, operation);
    return y;
}

CudnnTensor cudnn_graph_reshape(CudnnGraph *graph, CudnnTensor x, CudnnTensor y) {
    cudnnBackendDescriptor_t operation = cudnn_graph_create(graph, CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR);
    set_descriptor(graph, operation, CUDNN_ATTR_OPERATION_RESHAPE_XDESC, x);
    set_descriptor(graph, operation, CUDNN_ATTR_OPERATION_RESHAPE_YDESC, y);
    add_operation(graph, operation);
    return y;
}

Status cudnn_graph_take_error(CudnnGraph *graph) {
    Status status = graph->status;
    graph->status = STATUS_OK;
    return status;
}

Status cudnn_graph_finish(CudnnGraph *graph) {
    cudnnBackendDescriptor_t descriptor = cudnn_graph_create(graph, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    cudnn_graph_set(graph, descriptor, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, graph->operation_count,
                    graph->operations);
    cudnn_graph_finalize(graph, descriptor);
    graph->graph = descriptor;
    return cudnn_graph_take_error(graph);
}
