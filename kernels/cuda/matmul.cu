/* Matrix products through cuBLASLt.
 *
 * cuBLASLt thinks in column-major matrices; a row-major matrix is its own transpose read column-major. So the row-major
 * c[M,N] = op(a) op(b) is asked for as c' [N,M] = op(b)' op(a)': b becomes cuBLASLt's A, a its B, m = N, n = M, and the
 * transposition flags keep their meaning.
 *
 * Sums are fp32 and rounded once: TF32 is never used, and split-K reductions in the output type are excluded. The
 * algorithm chosen by the library's heuristic is kept per problem (sizes, types, alignments), so that one process always
 * uses the same one. */
#include "kernels/cuda/common.cuh"

#include <stdlib.h>
#include <string.h>

/* Everything that the choice of an algorithm depends on. Compared as bytes: no padding, always zeroed first. */
struct MatmulKey {
    int64_t m, n, k; /* of the row-major problem */
    int64_t a_stride;
    int32_t alignment_a, alignment_b, alignment_c, alignment_bias;
    uint8_t input_type, output_type, transpose_a, transpose_b;
    uint8_t has_bias, reserved[3];
};
static_assert(sizeof(MatmulKey) == 56, "a key has no padding");

struct MatmulPlan {
    MatmulKey key;
    bool used;
    cublasLtMatmulAlgo_t algorithm;
    size_t workspace_bytes;
};

/* Open addressing, at most three quarters full; capacity is a power of two. */
struct MatmulPlans {
    MatmulPlan *plans;
    size_t count, capacity;
};

/* The descriptors of one call: in the caller's frame, nothing to free. */
struct MatmulProblem {
    cublasLtMatmulDescOpaque_t operation;
    cublasLtMatrixLayoutOpaque_t first, second, result; /* cuBLASLt's A, B and C = D */
};

static Status blas_status(cublasStatus_t result, const char *what, const char *file, int line) {
    if (result == CUBLAS_STATUS_SUCCESS) return STATUS_OK;
    return status_new(STATUS_FAILED, file, line, "matmul: %s: %s", what, cublasLtGetStatusString(result));
}
#define TRY_BLAS(call) TRY(blas_status((call), #call, __FILE__, __LINE__))

Status matmul_plans_create(MatmulPlans **out) {
    MatmulPlans *plans;
    TRY_ALLOC(plans = (MatmulPlans *)calloc(1, sizeof *plans));
    plans->capacity = 256;
    plans->plans = (MatmulPlan *)calloc(plans->capacity, sizeof *plans->plans);
    if (!plans->plans) {
        free(plans);
        FAIL("out of memory: matmul plans");
    }
    *out = plans;
    return STATUS_OK;
}

void matmul_plans_destroy(MatmulPlans *plans) {
    if (!plans) return;
    free(plans->plans);
    free(plans);
}

/* The plan of the key, or the free slot for it. FNV-1a over the key's bytes. */
static MatmulPlan *find_plan(MatmulPlan *plans, size_t capacity, const MatmulKey *key) {
    uint64_t hash = 14695981039346656037u;
    for (size_t i = 0; i < sizeof *key; ++i) hash = (hash ^ ((const unsigned char *)key)[i]) * 1099511628211u;
    for (size_t slot = hash & (capacity - 1);; slot = (slot + 1) & (capacity - 1))
        if (!plans[slot].used || memcmp(&plans[slot].key, key, sizeof *key) == 0) return &plans[slot];
}

static Status grow_plans(MatmulPlans *table) {
    const size_t capacity = table->capacity * 2;
    MatmulPlan *plans;
    TRY_ALLOC(plans = (MatmulPlan *)calloc(capacity, sizeof *plans));
    for (size_t i = 0; i < table->capacity; ++i)
        if (table->plans[i].used) *find_plan(plans, capacity, &table->plans[i].key) = table->plans[i];
    free(table->plans);
    table->plans = plans;
    table->capacity = capacity;
    return STATUS_OK;
}

static cudaDataType_t data_type(uint8_t dtype) { return dtype == DTYPE_BF16 ? CUDA_R_16BF : CUDA_R_32F; }

/* The largest power of two up to 256 that divides the address. */
static int32_t alignment_of(const void *data) {
    int32_t alignment = 256;
    while ((uintptr_t)data % (uintptr_t)alignment) alignment /= 2;
    return alignment;
}

static Status describe(MatmulProblem *problem, const MatmulKey *key, const void *bias) {
    const cudaDataType_t input = data_type(key->input_type), output = data_type(key->output_type);
    const int64_t m = key->m, n = key->n, k = key->k;
    const int32_t transpose_first = key->transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    const int32_t transpose_second = key->transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    TRY_BLAS(cublasLtMatmulDescInit(&problem->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    TRY_BLAS(cublasLtMatmulDescSetAttribute(&problem->operation, CUBLASLT_MATMUL_DESC_TRANSA, &transpose_first,
                                            sizeof transpose_first));
    TRY_BLAS(cublasLtMatmulDescSetAttribute(&problem->operation, CUBLASLT_MATMUL_DESC_TRANSB, &transpose_second,
                                            sizeof transpose_second));
    if (key->has_bias) {
        const uint32_t epilogue = CUBLASLT_EPILOGUE_BIAS; /* of the output's type, along cuBLASLt's rows: our columns */
        const int32_t bias_type = output;
        TRY_BLAS(cublasLtMatmulDescSetAttribute(&problem->operation, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue));
        TRY_BLAS(cublasLtMatmulDescSetAttribute(&problem->operation, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &bias_type,
                                                sizeof bias_type));
        TRY_BLAS(cublasLtMatmulDescSetAttribute(&problem->operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias));
    }
    /* As stored, column-major: b[K,N] is N x K, b[N,K] is K x N; a[M,K] is K x M, a[K,M] is M x K. */
    TRY_BLAS(cublasLtMatrixLayoutInit(&problem->first, input, (uint64_t)(key->transpose_b ? k : n),
                                      (uint64_t)(key->transpose_b ? n : k), key->transpose_b ? k : n));
    TRY_BLAS(cublasLtMatrixLayoutInit(&problem->second, input, (uint64_t)(key->transpose_a ? m : k),
                                      (uint64_t)(key->transpose_a ? k : m), key->a_stride));
    TRY_BLAS(cublasLtMatrixLayoutInit(&problem->result, output, (uint64_t)n, (uint64_t)m, n));
    return STATUS_OK;
}

static Status choose_algorithm(CudaContext *context, MatmulProblem *problem, const MatmulKey *key, MatmulPlan *plan) {
    cublasLtMatmulPreferenceOpaque_t preference;
    const uint64_t workspace = context->workspace_bytes;
    const uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    const uint32_t alignment_first = (uint32_t)key->alignment_b, alignment_second = (uint32_t)key->alignment_a,
                   alignment_result = (uint32_t)key->alignment_c;
    TRY_BLAS(cublasLtMatmulPreferenceInit(&preference));
    const struct {
        cublasLtMatmulPreferenceAttributes_t name;
        const void *value;
        size_t bytes;
    } attributes[] = {
        {CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace},
        {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reductions, sizeof reductions},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &alignment_first, sizeof alignment_first},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &alignment_second, sizeof alignment_second},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &alignment_result, sizeof alignment_result},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &alignment_result, sizeof alignment_result},
    };
    for (size_t i = 0; i < sizeof attributes / sizeof *attributes; ++i)
        TRY_BLAS(cublasLtMatmulPreferenceSetAttribute(&preference, attributes[i].name, attributes[i].value, attributes[i].bytes));
    cublasLtMatmulHeuristicResult_t result;
    int found = 0;
    cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(context->blas, &problem->operation, &problem->first, &problem->second,
                                                           &problem->result, &problem->result, &preference, 1, &result, &found);
    if (status != CUBLAS_STATUS_SUCCESS || found == 0 || result.state != CUBLAS_STATUS_SUCCESS)
        FAIL(
            "matmul: cuBLASLt has no algorithm for M=%lld N=%lld K=%lld%s%s, %s to %s, addresses aligned to %d, %d, %d bytes: %s",
            (long long)key->m, (long long)key->n, (long long)key->k, key->transpose_a ? ", a transposed" : "",
            key->transpose_b ? ", b transposed" : "", key->input_type == DTYPE_BF16 ? "bf16" : "f32",
            key->output_type == DTYPE_BF16 ? "bf16" : "f32", key->alignment_a, key->alignment_b, key->alignment_c,
            cublasLtGetStatusString(status != CUBLAS_STATUS_SUCCESS || found == 0 ? status : result.state));
    plan->algorithm = result.algo;
    plan->workspace_bytes = result.workspaceSize;
    return STATUS_OK;
}

static Status multiply(CudaContext *context, const MatmulKey *key, void *c, const void *a, const void *b, const void *bias,
                       float alpha, float beta) {
    MatmulProblem problem;
    TRY(describe(&problem, key, bias));
    MatmulPlans *table = context->plans;
    if (table->count + 1 > table->capacity / 4 * 3) TRY(grow_plans(table));
    MatmulPlan *plan = find_plan(table->plans, table->capacity, key);
    if (!plan->used) {
        TRY(choose_algorithm(context, &problem, key, plan));
        plan->key = *key;
        plan->used = true;
        ++table->count;
    }
    TRY_BLAS(cublasLtMatmul(context->blas, &problem.operation, &alpha, b, &problem.first, a, &problem.second, &beta, c,
                            &problem.result, c, &problem.result, &plan->algorithm, context->workspace, plan->workspace_bytes,
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

static Status make_key(MatmulKey *key, Tensor c, Tensor a, int64_t a_stride, bool transpose_a, Tensor b, bool transpose_b,
                       Tensor bias) {
    memset(key, 0, sizeof *key);
    if (a.dtype != b.dtype || (a.dtype != DTYPE_F32 && a.dtype != DTYPE_BF16) || (c.dtype != DTYPE_F32 && c.dtype != a.dtype))
        FAIL("matmul: dtypes %d, %d to %d are not implemented", (int)a.dtype, (int)b.dtype, (int)c.dtype);
    key->m = transpose_a ? column_count(a) : row_count(a);
    key->k = transpose_a ? row_count(a) : column_count(a);
    key->n = transpose_b ? row_count(b) : column_count(b);
    key->a_stride = a_stride;
    key->alignment_a = alignment_of(a.data);
    key->alignment_b = alignment_of(b.data);
    key->alignment_c = alignment_of(c.data);
    key->alignment_bias = bias.data ? alignment_of(bias.data) : 0;
    key->input_type = (uint8_t)a.dtype;
    key->output_type = (uint8_t)c.dtype;
    key->transpose_a = transpose_a;
    key->transpose_b = transpose_b;
    key->has_bias = bias.data != NULL;
    return STATUS_OK;
}

Status matmul_strided(Device *device, Tensor c, Tensor a, int64_t a_stride, bool transpose_a, Tensor b, bool transpose_b,
                      float alpha, float beta) {
    MatmulKey key;
    TRY(make_key(&key, c, a, a_stride, transpose_a, b, transpose_b, tensor_absent()));
    if (key.m == 0 || key.n == 0) return STATUS_OK;
    if (key.k == 0) return scale_and_bias(cuda_context(device), c, tensor_absent(), key.n, beta);
    return multiply(cuda_context(device), &key, c.data, a.data, b.data, NULL, alpha, beta);
}

extern "C" Status cuda_matmul(Device *device, Arena *scratch, Tensor c, Tensor a, bool transpose_a, Tensor b, bool transpose_b,
                              Tensor bias, float alpha, float beta) {
    (void)scratch;
    CudaContext *context = cuda_context(device);
    MatmulKey key;
    TRY(make_key(&key, c, a, column_count(a), transpose_a, b, transpose_b, bias));
    if (key.m == 0 || key.n == 0) return STATUS_OK;
    if (key.k == 0) return scale_and_bias(context, c, bias, key.n, beta);
    if (bias.data && bias.dtype != c.dtype) {
        /* cuBLASLt's bias has the type of the result: a bf16 bias of an fp32 result is put there first. */
        TRY(scale_and_bias(context, c, bias, key.n, beta));
        return matmul_strided(device, c, a, column_count(a), transpose_a, b, transpose_b, alpha, 1);
    }
    return multiply(context, &key, c.data, a.data, b.data, bias.data, alpha, beta);
}
