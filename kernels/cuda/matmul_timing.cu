/* Measures cuBLASLt's suggestions for a product against each other, on an idle device.
 *
 * Operands are noise from a counter: on zeros a GPU draws less power and runs faster. Each algorithm is timed in three
 * rounds, of which the median counts; a round of a short product repeats it until launches no longer decide. */
#include "kernels/cuda/matmul_plans.cuh"

#include <time.h>

double matmul_clock(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Values in [-1, 1). */
template <typename T> __global__ void noise_kernel(T *x, int64_t elements, uint32_t seed) {
    const int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
    if (i >= elements) return;
    uint32_t h = (uint32_t)i * 2654435761u + seed;
    h ^= h >> 15;
    h *= 2246822519u;
    h ^= h >> 13;
    x[i] = from_float<T>((float)(h >> 8) * 1.1920928955078125e-7f - 1.0f); /* 2^-23 */
}

struct Operands {
    void *a, *b, *c;
};

static Status fill(CudaContext *context, void *data, uint8_t dtype, int64_t elements, uint32_t seed) {
    unsigned grid;
    TRY(linear_grid("matmul", elements, 256, &grid));
    DISPATCH_FLOAT(dtype, T, ADAMEM_LAUNCH(noise_kernel<T>, grid, 256, 0, context->stream, (T *)data, elements, seed));
    return STATUS_OK;
}

/* NULL where the arena has no room: nothing is measured then. */
static void *borrow(Arena *arena, uint8_t dtype, int64_t elements) {
    void *data = NULL;
    status_free(arena_allocate(arena, (size_t)elements * dtype_bytes((DType)dtype), ARENA_HIGH, &data));
    return data;
}

static Status run(CudaContext *context, const MatmulShape *shape, const Operands &o,
                  const cublasLtMatmulHeuristicResult_t *suggestion, int calls, double *seconds) {
    const float one = 1, zero = 0;
    MatmulProblem problem;
    TRY(matmul_describe(&problem, shape, o.b)); /* the bias: any numbers */
    const double begin = matmul_clock();
    for (int i = 0; i < calls; ++i)
        TRY_BLAS(cublasLtMatmul(context->blas, &problem.operation, &one, o.b, &problem.first, o.a, &problem.second, &zero, o.c,
                                &problem.result, o.c, &problem.result, &suggestion->algo, context->workspace,
                                suggestion->workspaceSize, context->stream));
    TRY_CUDA(cudaStreamSynchronize(context->stream));
    *seconds = (matmul_clock() - begin) / calls;
    return STATUS_OK;
}

static double median(double a, double b, double c) { return fmax(fmin(a, b), fmin(fmax(a, b), c)); }

static Status compare(CudaContext *context, const MatmulShape *shape, const Operands &o, const MatmulSuggestions *suggestions,
                      int *out) {
    static const double round_seconds = 2e-4, clearly = 0.98;
    double best = 0;
    *out = 0;
    for (int i = 0; i < suggestions->count; ++i) {
        double warm_up, seconds[3];
        TRY(run(context, shape, o, &suggestions->results[i], 1, &warm_up)); /* its kernel is loaded */
        TRY(run(context, shape, o, &suggestions->results[i], 1, &warm_up));
        const int calls = warm_up > 0 ? (int)fmin(fmax(round_seconds / warm_up, 1), 8) : 8;
        for (int round = 0; round < 3; ++round) TRY(run(context, shape, o, &suggestions->results[i], calls, &seconds[round]));
        const double typical = median(seconds[0], seconds[1], seconds[2]);
        if (i > 0 && typical >= clearly * best) continue;
        best = typical;
        *out = i;
    }
    return STATUS_OK;
}

Status matmul_fastest(CudaContext *context, Arena *arena, const MatmulShape *shape, const MatmulSuggestions *suggestions,
                      int *out) {
    const int64_t a = (shape->transpose_a ? shape->k : shape->m) * shape->a_stride;
    const int64_t b = shape->n * shape->k, c = shape->m * shape->n;
    *out = 0;
    const Operands o = {borrow(arena, shape->input_type, a), borrow(arena, shape->input_type, b),
                        borrow(arena, shape->output_type, c)};
    Status status = STATUS_OK;
    if (o.a && o.b && o.c) {
        status = fill(context, o.a, shape->input_type, a, 1);
        if (!status) status = fill(context, o.b, shape->input_type, b, 2);
        if (!status) status = compare(context, shape, o, suggestions, out);
    }
    arena_release(arena, o.c);
    arena_release(arena, o.b);
    arena_release(arena, o.a);
    return status;
}
