/* The table of matmul plans: one algorithm of cuBLASLt per family and bucket of tokens (kernels/matmul_shapes.h).
 *
 * An algorithm is chosen for the bucket's upper bound, then confirmed by cublasLtMatmulAlgoCheck for the size at hand; the
 * answer is kept, since a micro-batch asks for the same size once per layer. One that cannot do a size is replaced there by
 * the first that can of the family's larger buckets, then of the smaller ones, then by the library's suggestion for the exact
 * size: in all cases by what follows from the table and the size alone. */
#include "kernels/cuda/matmul_plans.cuh"

extern "C" {
#include "io/log.h"
}

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct MatmulPlan {
    MatmulShape shape; /* with the bucket's upper bound */
    bool used;
    MatmulAlgorithm chosen, spare; /* spare: for a size that `chosen` cannot do */
};

/* Open addressing, at most three quarters full; capacity is a power of two. */
struct MatmulPlans {
    MatmulPlan *plans;
    size_t count, capacity;
    bool watched; /* the next product without a plan is told */
};

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

/* The plan of a shape with a bucket's bound, or the free slot for it. FNV-1a over the shape's bytes. */
static MatmulPlan *find_plan(MatmulPlan *plans, size_t capacity, const MatmulShape *shape) {
    uint64_t hash = 14695981039346656037u;
    for (size_t i = 0; i < sizeof *shape; ++i) hash = (hash ^ ((const unsigned char *)shape)[i]) * 1099511628211u;
    for (size_t slot = hash & (capacity - 1);; slot = (slot + 1) & (capacity - 1))
        if (!plans[slot].used || memcmp(&plans[slot].shape, shape, sizeof *shape) == 0) return &plans[slot];
}

static Status grow_plans(MatmulPlans *table) {
    const size_t capacity = table->capacity * 2;
    MatmulPlan *plans;
    TRY_ALLOC(plans = (MatmulPlan *)calloc(capacity, sizeof *plans));
    for (size_t i = 0; i < table->capacity; ++i)
        if (table->plans[i].used) *find_plan(plans, capacity, &table->plans[i].shape) = table->plans[i];
    free(table->plans);
    table->plans = plans;
    table->capacity = capacity;
    return STATUS_OK;
}

/* The plan or, zeroed but for its shape, a new one, which counts once it is marked as used. */
static Status plan_slot(MatmulPlans *table, const MatmulShape *shape, MatmulPlan **out) {
    if (table->count + 1 > table->capacity / 4 * 3) TRY(grow_plans(table));
    *out = find_plan(table->plans, table->capacity, shape);
    (*out)->shape = *shape;
    return STATUS_OK;
}

static void use_plan(MatmulPlans *table, MatmulPlan *plan, const cublasLtMatmulAlgo_t *algorithm) {
    if (!plan->used) ++table->count;
    plan->used = true;
    plan->chosen = MatmulAlgorithm{*algorithm, 0, 0};
    plan->spare = MatmulAlgorithm{};
}

static Status set_preference(cublasLtMatmulPreferenceOpaque_t *preference, size_t workspace_bytes, const MatmulShape *shape) {
    const uint64_t workspace = workspace_bytes;
    const uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    const uint32_t alignment_first = (uint32_t)shape->alignment_b, alignment_second = (uint32_t)shape->alignment_a,
                   alignment_result = (uint32_t)shape->alignment_c;
    TRY_BLAS(cublasLtMatmulPreferenceInit(preference));
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
        TRY_BLAS(cublasLtMatmulPreferenceSetAttribute(preference, attributes[i].name, attributes[i].value, attributes[i].bytes));
    return STATUS_OK;
}

static const char *type_name(uint8_t dtype) { return dtype == DTYPE_BF16 ? "bf16" : "f32"; }

/* The library's suggestions for a shape, at most `most`. */
static Status suggest(CudaContext *context, const MatmulShape *shape, int most, MatmulSuggestions *out) {
    MatmulProblem problem;
    cublasLtMatmulPreferenceOpaque_t preference;
    TRY(matmul_describe(&problem, shape, context->workspace)); /* some aligned address stands for the bias */
    TRY(set_preference(&preference, context->workspace_bytes, shape));
    int found = 0;
    cublasStatus_t status =
        cublasLtMatmulAlgoGetHeuristic(context->blas, &problem.operation, &problem.first, &problem.second, &problem.result,
                                       &problem.result, &preference, most, out->results, &found);
    out->count = 0;
    for (int i = 0; status == CUBLAS_STATUS_SUCCESS && i < found; ++i)
        if (out->results[i].state == CUBLAS_STATUS_SUCCESS) out->results[out->count++] = out->results[i];
    if (out->count > 0) return STATUS_OK;
    FAIL("matmul: cuBLASLt has no algorithm for M=%lld N=%lld K=%lld%s%s, %s to %s, addresses aligned to %d, %d, %d bytes: %s",
         (long long)shape->m, (long long)shape->n, (long long)shape->k, shape->transpose_a ? ", a transposed" : "",
         shape->transpose_b ? ", b transposed" : "", type_name(shape->input_type), type_name(shape->output_type),
         shape->alignment_a, shape->alignment_b, shape->alignment_c,
         cublasLtGetStatusString(status != CUBLAS_STATUS_SUCCESS || found == 0 ? status : out->results[0].state));
}

/* Whether the algorithm can do the problem, with the workspace there is. */
static bool confirm(CudaContext *context, const MatmulProblem *problem, int64_t tokens, MatmulAlgorithm *algorithm) {
    MatmulProblem p = *problem;
    cublasLtMatmulHeuristicResult_t result;
    cublasStatus_t status = cublasLtMatmulAlgoCheck(context->blas, &p.operation, &p.first, &p.second, &p.result, &p.result,
                                                    &algorithm->algorithm, &result);
    if (status != CUBLAS_STATUS_SUCCESS || result.workspaceSize > context->workspace_bytes) return false;
    algorithm->tokens = tokens;
    algorithm->workspace_bytes = result.workspaceSize;
    return true;
}

/* The plan of the family's bucket that ends at `bound`, or NULL. */
static MatmulPlan *plan_at(MatmulPlans *table, const MatmulShape *shape, int64_t bound) {
    const MatmulShape at = matmul_shape_with_tokens(*shape, bound);
    MatmulPlan *plan = find_plan(table->plans, table->capacity, &at);
    return plan->used ? plan : NULL;
}

/* Bound of the bucket below, 0 below the first. */
static int64_t bucket_below(int64_t bound) {
    int64_t step = 1;
    while (bound > 16 * step) step *= 2;
    return bound - step;
}

/* Fills plan->spare for a size that plan->chosen cannot do. */
static Status find_spare(CudaContext *context, const MatmulProblem *problem, const MatmulShape *shape, MatmulPlan *plan) {
    const int64_t tokens = matmul_shape_tokens(shape), bound = matmul_shape_tokens(&plan->shape);
    MatmulPlan *other;
    for (int64_t up = matmul_bucket(bound + 1); (other = plan_at(context->plans, shape, up)) != NULL;
         up = matmul_bucket(up + 1)) {
        plan->spare = other->chosen;
        if (confirm(context, problem, tokens, &plan->spare)) return STATUS_OK;
    }
    for (int64_t down = bucket_below(bound); (other = plan_at(context->plans, shape, down)) != NULL; down = bucket_below(down)) {
        plan->spare = other->chosen;
        if (confirm(context, problem, tokens, &plan->spare)) return STATUS_OK;
    }
    MatmulSuggestions suggestions;
    plan->spare = MatmulAlgorithm{};
    TRY(suggest(context, shape, 1, &suggestions));
    plan->spare.algorithm = suggestions.results[0].algo;
    if (!confirm(context, problem, tokens, &plan->spare))
        FAIL("matmul: cuBLASLt refuses its own algorithm for M=%lld N=%lld K=%lld", (long long)shape->m, (long long)shape->n,
             (long long)shape->k);
    return STATUS_OK;
}

/* A product that nobody planned: by the library's first suggestion, on every rank for itself. */
static Status plan_now(CudaContext *context, MatmulPlan *plan) {
    MatmulPlans *table = context->plans;
    const MatmulShape *shape = &plan->shape;
    MatmulSuggestions suggestions;
    TRY(suggest(context, shape, 1, &suggestions));
    use_plan(table, plan, &suggestions.results[0].algo);
    if (!table->watched) return STATUS_OK;
    table->watched = false;
    log_warning("matmul: M=%lld N=%lld K=%lld%s%s, %s to %s was not planned ahead: each rank chooses by itself",
                (long long)shape->m, (long long)shape->n, (long long)shape->k, shape->transpose_a ? ", a transposed" : "",
                shape->transpose_b ? ", b transposed" : "", type_name(shape->input_type), type_name(shape->output_type));
    return STATUS_OK;
}

Status matmul_plan(CudaContext *context, const MatmulProblem *problem, const MatmulShape *shape, const MatmulAlgorithm **out) {
    const int64_t tokens = matmul_shape_tokens(shape);
    const MatmulShape planned = matmul_shape_with_tokens(*shape, matmul_bucket(tokens));
    MatmulPlan *plan;
    TRY(plan_slot(context->plans, &planned, &plan));
    if (!plan->used) TRY(plan_now(context, plan));
    *out = &plan->chosen;
    if (plan->chosen.tokens == tokens) return STATUS_OK;
    *out = &plan->spare;
    if (plan->spare.tokens == tokens) return STATUS_OK;
    if (!confirm(context, problem, tokens, &plan->chosen)) return find_spare(context, problem, shape, plan);
    *out = &plan->chosen;
    return STATUS_OK;
}

static void library_name(const Device *device, char text[MATMUL_LIBRARY_BYTES]) {
    snprintf(text, MATMUL_LIBRARY_BYTES, "%.90s, cuBLASLt %zu", device->name, cublasLtGetVersion());
}

/* What choosing works with. */
struct Choosing {
    CudaContext *context;
    MatmulTiming timing;
    double deadline;
    MatmulCounts *counts;
};

/* One plan, unless it is there. What the library cannot do is left to be told when it is asked for. */
static Status choose_one(Choosing *c, const MatmulShape *shape) {
    MatmulPlans *table = c->context->plans;
    MatmulSuggestions suggestions;
    MatmulPlan *plan;
    int best = 0;
    TRY(plan_slot(table, shape, &plan));
    if (plan->used) return STATUS_OK;
    const bool measure = matmul_shape_flops(shape) >= c->timing.least_flops && matmul_clock() < c->deadline;
    Status status = suggest(c->context, shape, measure ? MATMUL_SUGGESTIONS : 1, &suggestions);
    if (status) {
        status_free(status);
        return STATUS_OK;
    }
    if (suggestions.count > 1) {
        TRY(matmul_fastest(c->context, c->timing.arena, shape, &suggestions, &best));
        ++c->counts->measured;
    }
    use_plan(table, plan, &suggestions.results[best].algo);
    ++c->counts->chosen;
    return STATUS_OK;
}

/* The largest buckets of all families first: the time for measuring may end before all are done. */
static Status choose_plans(Device *device, const MatmulFamilies *families, MatmulTiming timing, MatmulCounts *counts) {
    Choosing choosing = {cuda_context(device), timing, matmul_clock() + timing.seconds, counts};
    int64_t *bounds, left = families->count;
    *counts = MatmulCounts{};
    TRY_ALLOC(bounds = (int64_t *)calloc((size_t)families->count + 1, sizeof *bounds));
    for (int64_t i = 0; i < families->count; ++i) bounds[i] = matmul_bucket(matmul_shape_tokens(&families->items[i].largest));
    Status status = STATUS_OK;
    while (left > 0 && !status)
        for (int64_t i = 0; i < families->count && !status; ++i) {
            if (bounds[i] == 0) continue;
            const MatmulShape shape = matmul_shape_with_tokens(families->items[i].largest, bounds[i]);
            status = choose_one(&choosing, &shape);
            bounds[i] = bucket_below(bounds[i]);
            left -= bounds[i] == 0;
        }
    free(bounds);
    return status;
}

/* The table as bytes: for this machine's byte order and this library only. */
struct TableHeader {
    uint64_t record_bytes, count;
};
struct TableRecord {
    MatmulShape shape;
    cublasLtMatmulAlgo_t algorithm;
};

static Status write_table(Device *device, Text *out) {
    const MatmulPlans *table = cuda_context(device)->plans;
    const TableHeader header = {sizeof(TableRecord), table->count};
    TRY(text_append(out, (const char *)&header, sizeof header));
    for (size_t i = 0; i < table->capacity; ++i) {
        if (!table->plans[i].used) continue;
        const TableRecord record = {table->plans[i].shape, table->plans[i].chosen.algorithm};
        TRY(text_append(out, (const char *)&record, sizeof record));
    }
    return STATUS_OK;
}

static bool sound(const MatmulShape *s) {
    const int64_t tokens = matmul_shape_tokens(s);
    return s->m > 0 && s->n > 0 && s->k > 0 && s->a_stride > 0 && tokens <= INT64_MAX / 4 && matmul_bucket(tokens) == tokens;
}

static Status read_table(Device *device, const char *bytes, size_t length) {
    MatmulPlans *table = cuda_context(device)->plans;
    TableHeader header;
    TableRecord record;
    if (length < sizeof header) INVALID("a table of matmul plans of %zu bytes", length);
    memcpy(&header, bytes, sizeof header);
    if (header.record_bytes != sizeof record || header.count != (length - sizeof header) / sizeof record ||
        header.count * sizeof record != length - sizeof header)
        INVALID("a table of matmul plans with records of another size");
    for (const char *at = bytes + sizeof header; at < bytes + length; at += sizeof record) {
        memcpy(&record, at, sizeof record);
        if (!sound(&record.shape)) INVALID("a table of matmul plans with a shape that is none");
    }
    for (const char *at = bytes + sizeof header; at < bytes + length; at += sizeof record) {
        MatmulPlan *plan;
        memcpy(&record, at, sizeof record);
        TRY(plan_slot(table, &record.shape, &plan));
        use_plan(table, plan, &record.algorithm);
    }
    return STATUS_OK;
}

static void watch(Device *device, bool on) { cuda_context(device)->plans->watched = on; }

extern "C" const MatmulPlanning *matmul_planning_cuda(void) {
    static const MatmulPlanning planning = {library_name, choose_plans, write_table, read_table, watch};
    return &planning;
}
