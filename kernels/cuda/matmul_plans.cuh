/* How matmul.cu asks for the algorithm of a product. */
#ifndef KERNELS_CUDA_MATMUL_PLANS_CUH
#define KERNELS_CUDA_MATMUL_PLANS_CUH

#include "kernels/cuda/common.cuh"

extern "C" {
#include "kernels/matmul_plans.h"
}

/* The descriptors of one call: in the caller's frame, nothing to free. */
struct MatmulProblem {
    cublasLtMatmulDescOpaque_t operation;
    cublasLtMatrixLayoutOpaque_t first, second, result; /* cuBLASLt's A, B and C = D */
};

struct MatmulAlgorithm {
    cublasLtMatmulAlgo_t algorithm;
    int64_t tokens;         /* number for which the library has confirmed it; 0: none yet */
    size_t workspace_bytes; /* that it needs for these */
};

static inline Status blas_status(cublasStatus_t result, const char *what, const char *file, int line) {
    if (result == CUBLAS_STATUS_SUCCESS) return STATUS_OK;
    return status_new(STATUS_FAILED, file, line, "matmul: %s: %s", what, cublasLtGetStatusString(result));
}
#define TRY_BLAS(call) TRY(blas_status((call), #call, __FILE__, __LINE__))

/* The product in cuBLASLt's words. bias: its address, where the shape has one (matmul.cu). */
Status matmul_describe(MatmulProblem *problem, const MatmulShape *shape, const void *bias);
/* The algorithm for a described problem, confirmed for its size; valid until the next call (matmul_plans.cu). */
Status matmul_plan(CudaContext *context, const MatmulProblem *problem, const MatmulShape *shape, const MatmulAlgorithm **out);

/* Measuring (matmul_timing.cu). What came out of the library's suggestions for a shape, best first by its own judgement. */
enum { MATMUL_SUGGESTIONS = 4 };
struct MatmulSuggestions {
    cublasLtMatmulHeuristicResult_t results[MATMUL_SUGGESTIONS];
    int count; /* at least 1 */
};
/* Index of the fastest. The first stays unless another is clearly faster, or where the operands find no room. */
Status matmul_fastest(CudaContext *context, Arena *arena, const MatmulShape *shape, const MatmulSuggestions *suggestions,
                      int *out);
double matmul_clock(void); /* seconds */

#endif
