#include "tests/cuda_on_host/streams.h"

#include <cublasLt.h>
#include <cuda_bf16.h>

#include <stdlib.h>
#include <vector>

const char *cublasLtGetStatusString(cublasStatus_t status) {
    switch (status) {
    case CUBLAS_STATUS_SUCCESS: return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_INVALID_VALUE: return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_EXECUTION_FAILED: return "CUBLAS_STATUS_EXECUTION_FAILED";
    case CUBLAS_STATUS_NOT_SUPPORTED: return "CUBLAS_STATUS_NOT_SUPPORTED";
    }
    return "an unknown status";
}

struct cublasLtContext {
    int first_algorithm;
};

static int first_algorithm = -1, refused_algorithm = -1, slow_algorithm = -1;
static int64_t refused_columns;

void host_set_first_algorithm(int number) { first_algorithm = number; }
void host_set_slow_algorithm(int number) { slow_algorithm = number; }
void host_set_refused_algorithm(int number, int64_t n) {
    refused_algorithm = number;
    refused_columns = n;
}

size_t cublasLtGetVersion() { return 130000; }

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle) {
    const char *text = getenv("HOST_FIRST_ALGORITHM");
    *handle = (cublasLtHandle_t)malloc(sizeof **handle);
    if (!*handle) return CUBLAS_STATUS_INVALID_VALUE;
    (*handle)->first_algorithm = first_algorithm >= 0 ? first_algorithm : text ? atoi(text) % HOST_ALGORITHMS : 0;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
    free(handle);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescInit(cublasLtMatmulDesc_t description, cublasComputeType_t compute, cudaDataType_t scale) {
    *description = {CUBLAS_OP_N, CUBLAS_OP_N, CUBLASLT_EPILOGUE_DEFAULT, -1, NULL};
    return compute == CUBLAS_COMPUTE_32F && scale == CUDA_R_32F ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

template <typename T> static cublasStatus_t set(T *to, const void *value, size_t bytes) {
    if (bytes != sizeof *to) return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(to, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t description, cublasLtMatmulDescAttributes_t attribute,
                                              const void *value, size_t bytes) {
    switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA: return set(&description->transpose_a, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB: return set(&description->transpose_b, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE: return set(&description->epilogue, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER: return set(&description->bias, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE: return set(&description->bias_type, value, bytes);
    }
    return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatrixLayoutInit(cublasLtMatrixLayout_t layout, cudaDataType_t type, uint64_t rows, uint64_t columns,
                                        int64_t leading) {
    *layout = {type, rows, columns, leading};
    const bool sound = rows > 0 && columns > 0 && leading > 0 && (uint64_t)leading >= rows;
    return sound ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

/* The library assumes addresses aligned to 256 bytes unless it is told otherwise. */
cublasStatus_t cublasLtMatmulPreferenceInit(cublasLtMatmulPreference_t preference) {
    *preference = {0, 0, {256, 256, 256, 256}};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void *value,
                                                    size_t bytes) {
    switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES: return set(&preference->workspace, value, bytes);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK: return set(&preference->reductions, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES: return set(&preference->alignment[0], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES: return set(&preference->alignment[1], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES: return set(&preference->alignment[2], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES: return set(&preference->alignment[3], value, bytes);
    }
    return CUBLAS_STATUS_INVALID_VALUE;
}

/* m, n, k of D[m, n] = op(A)[m, k] op(B)[k, n]; false where the shapes do not fit together. */
static bool sizes(const cublasLtMatmulDescOpaque_t &d, const cublasLtMatrixLayoutOpaque_t &a,
                  const cublasLtMatrixLayoutOpaque_t &b, const cublasLtMatrixLayoutOpaque_t &c, int64_t *m, int64_t *n,
                  int64_t *k) {
    *m = (int64_t)(d.transpose_a ? a.columns : a.rows);
    *k = (int64_t)(d.transpose_a ? a.rows : a.columns);
    *n = (int64_t)(d.transpose_b ? b.rows : b.columns);
    return (int64_t)(d.transpose_b ? b.columns : b.rows) == *k && (int64_t)c.rows == *m && (int64_t)c.columns == *n;
}

/* Table of supported types: bf16 to bf16 or fp32, fp32 to fp32; the bias has the type of D. */
static bool supported(const cublasLtMatmulDescOpaque_t &d, const cublasLtMatrixLayoutOpaque_t &a,
                      const cublasLtMatrixLayoutOpaque_t &b, const cublasLtMatrixLayoutOpaque_t &c,
                      const cublasLtMatrixLayoutOpaque_t &result) {
    if (a.type != b.type || c.type != result.type || c.leading != result.leading) return false;
    if (result.type != CUDA_R_32F && result.type != a.type) return false;
    if (d.epilogue == CUBLASLT_EPILOGUE_BIAS) return d.bias_type == -1 || d.bias_type == (int32_t)result.type;
    return d.epilogue == CUBLASLT_EPILOGUE_DEFAULT;
}

static void set_fingerprint(int64_t (&to)[8], const cublasLtMatmulDescOpaque_t &d, const cublasLtMatrixLayoutOpaque_t &a,
                            const cublasLtMatrixLayoutOpaque_t &b, const cublasLtMatrixLayoutOpaque_t &c) {
    const int64_t values[8] = {
        (int64_t)c.rows, a.leading, b.leading, c.leading, a.type, c.type, d.transpose_a * 2 + d.transpose_b, d.epilogue};
    memcpy(to, values, sizeof to);
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t description, cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int most,
                                              cublasLtMatmulHeuristicResult_t *results, int *found) {
    int64_t m, n, k;
    *found = 0;
    if (!handle || most < 1 || !sizes(*description, *a, *b, *d, &m, &n, &k)) return CUBLAS_STATUS_INVALID_VALUE;
    if (!supported(*description, *a, *b, *c, *d)) return CUBLAS_STATUS_NOT_SUPPORTED;
    for (int i = 0; i < HOST_ALGORITHMS && *found < most; ++i) {
        cublasLtMatmulHeuristicResult_t *result = &results[*found];
        *result = {};
        result->algo.number = (handle->first_algorithm + i) % HOST_ALGORITHMS;
        if (result->algo.number == refused_algorithm && n == refused_columns) continue;
        set_fingerprint(result->algo.fingerprint, *description, *a, *b, *d);
        memcpy(result->algo.alignment, preference->alignment, sizeof preference->alignment);
        result->algo.workspace = preference->workspace / 2; /* as a split-K algorithm would */
        result->workspaceSize = (size_t)result->algo.workspace;
        result->state = CUBLAS_STATUS_SUCCESS;
        ++*found;
    }
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t handle, cublasLtMatmulDesc_t description, cublasLtMatrixLayout_t a,
                                       cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t *algorithm, cublasLtMatmulHeuristicResult_t *result) {
    int64_t m, n, k, fingerprint[8];
    if (!handle || !sizes(*description, *a, *b, *d, &m, &n, &k)) return CUBLAS_STATUS_INVALID_VALUE;
    if (!supported(*description, *a, *b, *c, *d)) return CUBLAS_STATUS_NOT_SUPPORTED;
    set_fingerprint(fingerprint, *description, *a, *b, *d);
    if (memcmp(fingerprint, algorithm->fingerprint, sizeof fingerprint) != 0) return CUBLAS_STATUS_INVALID_VALUE;
    if (algorithm->number < 0 || algorithm->number >= HOST_ALGORITHMS) return CUBLAS_STATUS_INVALID_VALUE;
    if (algorithm->number == refused_algorithm && n == refused_columns) return CUBLAS_STATUS_NOT_SUPPORTED;
    *result = {};
    result->workspaceSize = (size_t)algorithm->workspace;
    result->state = CUBLAS_STATUS_SUCCESS;
    return CUBLAS_STATUS_SUCCESS;
}

static float element(const void *data, cudaDataType_t type, int64_t i) {
    return type == CUDA_R_32F ? ((const float *)data)[i] : __bfloat162float(((const __nv_bfloat16 *)data)[i]);
}

/* op(matrix) as floats, column by column. */
static std::vector<float> unpack(const void *data, const cublasLtMatrixLayoutOpaque_t &layout, bool transpose) {
    const int64_t rows = (int64_t)layout.rows, columns = (int64_t)layout.columns;
    std::vector<float> to((size_t)(rows * columns));
    for (int64_t j = 0; j < columns; ++j)
        for (int64_t i = 0; i < rows; ++i)
            to[(size_t)(transpose ? j + i * columns : i + j * rows)] = element(data, layout.type, i + j * layout.leading);
    return to;
}

/* A call whose arguments have been found good. */
struct Product {
    cublasLtMatmulDescOpaque_t description;
    cublasLtMatrixLayoutOpaque_t a_layout, b_layout, layout;
    const void *a, *b, *c;
    void *d;
    float alpha, beta;
    int64_t k;
    int algorithm;
};

/* sum[m] = op(A) column-of-op(B): each of `parts` parts of K in double, rounded, then added in turn. */
static void multiply_column(std::vector<double> &sum, const std::vector<float> &a, const float *column, int64_t m, int64_t k,
                            int parts) {
    std::vector<double> part((size_t)m);
    std::fill(sum.begin(), sum.end(), 0.0);
    for (int p = 0; p < parts; ++p) {
        std::fill(part.begin(), part.end(), 0.0);
        for (int64_t l = k * p / parts; l < k * (p + 1) / parts; ++l) {
            const double factor = (double)column[l];
            const float *row = &a[(size_t)(l * m)];
            for (int64_t i = 0; i < m; ++i) part[(size_t)i] += factor * (double)row[i];
        }
        for (int64_t i = 0; i < m; ++i)
            sum[(size_t)i] = parts == 1 ? part[(size_t)i] : (double)((float)sum[(size_t)i] + (float)part[(size_t)i]);
    }
}

/* One column of the product at a time. */
static void multiply(const Product &p) {
    const std::vector<float> a = unpack(p.a, p.a_layout, p.description.transpose_a != 0);
    const std::vector<float> b = unpack(p.b, p.b_layout, p.description.transpose_b != 0);
    const int64_t m = (int64_t)p.layout.rows, n = (int64_t)p.layout.columns;
    std::vector<double> sum((size_t)m);
    for (int64_t j = 0; j < n; ++j) {
        for (int again = p.algorithm == slow_algorithm ? 4 : 1; again > 0; --again)
            multiply_column(sum, a, &b[(size_t)(j * p.k)], m, p.k, 1 << p.algorithm);
        for (int64_t i = 0; i < m; ++i) {
            const int64_t at = i + j * p.layout.leading;
            double value = (double)p.alpha * sum[(size_t)i];
            if (p.beta != 0) value += (double)p.beta * (double)element(p.c, p.layout.type, at); /* beta = 0 does not read C */
            if (p.description.epilogue == CUBLASLT_EPILOGUE_BIAS) value += (double)element(p.description.bias, p.layout.type, i);
            if (p.layout.type == CUDA_R_32F)
                ((float *)p.d)[at] = (float)value;
            else
                ((__nv_bfloat16 *)p.d)[at] = __float2bfloat16_rn((float)value);
        }
    }
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t description, const void *alpha, const void *a,
                              cublasLtMatrixLayout_t a_layout, const void *b, cublasLtMatrixLayout_t b_layout, const void *beta,
                              const void *c, cublasLtMatrixLayout_t c_layout, void *d, cublasLtMatrixLayout_t d_layout,
                              const cublasLtMatmulAlgo_t *algorithm, void *workspace, size_t workspace_bytes,
                              cudaStream_t stream) {
    if (host_device_call() != cudaSuccess) return CUBLAS_STATUS_EXECUTION_FAILED;
    int64_t m, n, k;
    cublasLtMatmulHeuristicResult_t checked;
    if (!handle || !a || !b || !c || !d || !algorithm || (description->epilogue == CUBLASLT_EPILOGUE_BIAS && !description->bias))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (!sizes(*description, *a_layout, *b_layout, *d_layout, &m, &n, &k)) return CUBLAS_STATUS_INVALID_VALUE;
    if (!supported(*description, *a_layout, *b_layout, *c_layout, *d_layout)) return CUBLAS_STATUS_NOT_SUPPORTED;
    if (cublasLtMatmulAlgoCheck(handle, description, a_layout, b_layout, c_layout, d_layout, algorithm, &checked))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    const void *addresses[4] = {a, b, c, d};
    for (int i = 0; i < 4; ++i)
        if ((uintptr_t)addresses[i] % algorithm->alignment[i]) return CUBLAS_STATUS_NOT_SUPPORTED;
    if (workspace_bytes < algorithm->workspace || (uintptr_t)workspace % 256) return CUBLAS_STATUS_INVALID_VALUE;
    const Product product = {*description,         *a_layout, *b_layout,        *d_layout, a, b, c, d, *(const float *)alpha,
                             *(const float *)beta, k,         algorithm->number};
    host_stream_issue(stream, [product, workspace, workspace_bytes] {
        HostMemoryAccess access;
        if (workspace_bytes > 0) memset(workspace, 0xff, workspace_bytes < 4096 ? workspace_bytes : 4096); /* lost */
        multiply(product);
    });
    return CUBLAS_STATUS_SUCCESS;
}
