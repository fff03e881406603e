/* Matrix products through cuBLASLt; matmul_plans.cu says by which algorithm.
 *
 * cuBLASLt thinks in column-major matrices; a row-major matrix is its own transpose read column-major. So the row-major
 * c[M,N] = op(a) op(b) is asked for as c' [N,M] = op(b)' op(a)': b becomes cuBLASLt's A, a its B, m = N, n = M, and the
 * transposition flags keep their meaning.
 *
 * Sums are fp32 and rounded once: TF32 is never used, and split-K reductions in the output type are excluded. */
#include "kernels/cuda/matmul_plans.cuh"

static cudaDataType_t data_type(uint8_t dtype) { return dtype == DTYPE_BF16 ? CUDA_R_16BF : CUDA_R_32F; }

Status matmul_describe(MatmulProblem *problem, const MatmulShape *shape, const void *bias) {
    const cudaDataType_t input = data_type(shape->input_type), output = data_type(shape->output_type);
    const int64_t m = shape->m, n = shape->n, k = shape->k;
    const int32_t transpose_first = shape->transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    const int32_t transpose_second = shape->transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    TRY_BLAS(cublasLtMatmulDescInit(&problem->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    TRY_BLAS(cublasLtMatmulDescSetAttribute(&problem->operation, CUBLASLT_MATMUL_DESC_TRANSA, &transpose_first,
                                            sizeof transpose_first));
    TRY_BLAS(cublasLtMatmulDescSetAttribute(&problem->operation, CUBLASLT_MATMUL_DESC_TRANSB, &transpose_second,
                                            sizeof transpose_second));
    if (shape->has_bias) {
        const uint32_t epilogue = CUBLASLT_EPILOGUE_BIAS; /* of the output's type, along cuBLASLt's rows: our columns */
        const int32_t bias_type = output;
        TRY_BLAS(cublasLtMatmulDescSetAttribute(&problem->operation, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue));
        TRY_BLAS(cublasLtMatmulDescSetAttribute(&problem->operation, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &bias_type,
                                                sizeof bias_type));
        TRY_BLAS(cublasLtMatmulDescSetAttribute(&problem->operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias));
    }
    /* As stored, column-major: b[K,N] is N x K, b[N,K] is K x N; a[M,K] is K x M, a[K,M] is M x K. */
    TRY_BLAS(cublasLtMatrixLayoutInit(&problem->first, input, (uint64_t)(shape->transpose_b ? k : n),
                                      (uint64_t)(shape->transpose_b ? n : k), shape->transpose_b ? k : n));
    TRY_BLAS(cublasLtMatrixLayoutInit(&problem->second, input, (uint64_t)(shape->transpose_a ? m : k),
                                      (uint64_t)(shape->transpose_a ? k : m), shape->a_stride));
    TRY_BLAS(cublasLtMatrixLayoutInit(&problem->result, output, (uint64_t)n, (uint64_t)m, n));
    return STATUS_OK;
}

static Status multiply(CudaContext *context, const MatmulShape *shape, void *c, const void *a, const void *b, const void *bias,
                       float alpha, float beta) {
    MatmulProblem problem;
    const MatmulAlgorithm *chosen;
    TRY(matmul_describe(&problem, shape, bias));
    TRY(matmul_plan(context, &problem, shape, &chosen));
    TRY_BLAS(cublasLtMatmul(context->blas, &problem.operation, &alpha, b, &problem.first, a, &problem.second, &beta, c,
                            &problem.result, c, &problem.result, &chosen->algorithm, context->workspace, chosen->workspace_bytes,
                            context->stream));
    return STATUS_OK;
}

/* c = beta * c + bias: the product over an empty K. beta = 0 does not read c. */
template <typename T, typename B>
__global__ void scale_and_bias_kernel(T *c, const B *bias, int64_t elements, int64_t columns, float beta) {
    const int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
    if (i >= elements) return;
    const float kept = beta == 0 ? 0 : beta * to_float(c[i]);
    c[i] = from_float<T>(kept + (bias ? to_float(bias[i % columns]) : 0));
}

static Status scale_and_bias(CudaContext *context, Tensor c, Tensor bias, int64_t columns, float beta) {
    const int64_t elements = tensor_elements(c);
    unsigned grid;
    TRY(linear_grid(__func__, elements, 256, &grid));
    DISPATCH_FLOAT(c.dtype, T,
                   DISPATCH_FLOAT(bias.data ? bias.dtype : DTYPE_F32, B,
                                  ADAMEM_LAUNCH((scale_and_bias_kernel<T, B>), grid, 256, 0, context->stream, (T *)c.data,
                                                (const B *)bias.data, elements, columns, beta)));
    return STATUS_OK;
}

Status matmul_strided(Device *device, Tensor c, Tensor a, int64_t a_stride, bool transpose_a, Tensor b, bool transpose_b,
                      float alpha, float beta) {
    MatmulShape shape;
    TRY(matmul_shape(&shape, c, a, a_stride, transpose_a, b, transpose_b, false));
    if (shape.m == 0 || shape.n == 0) return STATUS_OK;
    if (shape.k == 0) return scale_and_bias(cuda_context(device), c, tensor_absent(), shape.n, beta);
    return multiply(cuda_context(device), &shape, c.data, a.data, b.data, NULL, alpha, beta);
}

extern "C" Status cuda_matmul(Device *device, Arena *scratch, Tensor c, Tensor a, bool transpose_a, Tensor b, bool transpose_b,
                              Tensor bias, float alpha, float beta) {
    (void)scratch;
    CudaContext *context = cuda_context(device);
    MatmulShape shape;
    TRY(matmul_shape(&shape, c, a, column_count(a), transpose_a, b, transpose_b, bias.data != NULL));
    if (shape.m == 0 || shape.n == 0) return STATUS_OK;
    if (shape.k == 0) return scale_and_bias(context, c, bias, shape.n, beta);
    if (bias.data && bias.dtype != c.dtype) {
        /* cuBLASLt's bias has the type of the result: a bf16 bias of an fp32 result is put there first. */
        TRY(scale_and_bias(context, c, bias, shape.n, beta));
        return matmul_strided(device, c, a, column_count(a), transpose_a, b, transpose_b, alpha, 1);
    }
    return multiply(context, &shape, c.data, a.data, b.data, bias.data, alpha, beta);
}
