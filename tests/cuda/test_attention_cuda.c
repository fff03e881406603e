/* The implementations of attention on the GPU against each other, on sequences too long for the float64 reference of the op
 * table, and cuDNN on the batches that are easily got wrong; what an engine cannot take goes to the next one; repeated runs
 * give the same bits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "kernels/cuda/ops_cuda.h"

#ifdef ADAMEM_CUDA_ON_HOST /* emulation is slow */
#include "tests/cuda_on_host/cudnn.h"
#include "tests/cuda_on_host/self_test.h"
#define LONG            140
#define OTHER           10
#define ARENA_MEGABYTES 64
#else
#define LONG            4097
#define OTHER           1500
#define ARENA_MEGABYTES 1024 /* cuDNN's scratch */
#endif

enum { MAX_LENGTHS = 40, RESULTS = 5, TENSORS = 4 + RESULTS };
static const char *const names[RESULTS] = {"out", "lse", "dq", "dk", "dv"};

typedef struct Problem {
    int64_t lengths[MAX_LENGTHS]; /* ends with 0 or when full */
    int64_t query_heads, key_heads, head_dimension;
    bool causal;
    size_t shift; /* bytes by which every tensor misses its alignment */
} Problem;

typedef struct Rig {
    Device *device;
    Arena *arena;
    SequenceLayout layout;
    AttentionShape shape;
    int32_t host_offsets[MAX_LENGTHS + 1];
    void *offsets, *memory[TENSORS];
    Tensor q, k, v, dout, result[RESULTS]; /* out, lse, dq, dk, dv */
} Rig;

static void succeeds(Status status) {
    if (status) fail_msg("%s", status_message(status));
}

static uint16_t bf16_cut(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (uint16_t)(bits >> 16);
}

static float bf16_value(uint16_t bits) {
    const uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

/* Sums of four uniform numbers: near enough to normal, variance 4/3. */
static Tensor make_tensor(Rig *rig, int index, size_t shift, DType dtype, int64_t a, int64_t b, int64_t c) {
    Tensor tensor = {.dtype = dtype, .dimensions = 3, .shape = {a, b, c, 1}};
    const int64_t count = a * b * c;
    const size_t bytes = tensor_bytes(tensor);
    float *host = malloc((size_t)count * sizeof *host);
    uint32_t state = 12345u + (uint32_t)index;
    for (int64_t i = 0; i < count; ++i) {
        float value = 0;
        for (int j = 0; j < 4; ++j) {
            state = state * 1664525u + 1013904223u;
            value += (float)(state >> 8) * 0x1p-23f - 1.0f;
        }
        if (dtype == DTYPE_F32)
            host[i] = value;
        else
            ((uint16_t *)host)[i] = bf16_cut(value);
    }
    succeeds(device_allocate(rig->device, bytes + 16, &rig->memory[index]));
    tensor.data = (char *)rig->memory[index] + shift;
    succeeds(device_upload(rig->device, tensor.data, host, bytes));
    free(host);
    return tensor;
}

static Rig open_rig(const Problem *p, DType act) {
    Rig rig = {0};
    const char *why;
    if (!device_cuda_available(&why)) skip();
    succeeds(device_open(BACKEND_CUDA, 0, 0, &rig.device));
    succeeds(arena_create(rig.device, (size_t)ARENA_MEGABYTES << 20, &rig.arena));
    int64_t tokens = 0;
    for (int s = 0; s < MAX_LENGTHS && p->lengths[s]; ++s) {
        rig.host_offsets[s + 1] = (int32_t)(tokens += p->lengths[s]);
        rig.layout.sequences = s + 1;
        if (p->lengths[s] > rig.layout.longest) rig.layout.longest = p->lengths[s];
    }
    succeeds(device_allocate(rig.device, sizeof rig.host_offsets, &rig.offsets));
    succeeds(device_upload(rig.device, rig.offsets, rig.host_offsets, sizeof rig.host_offsets));
    rig.layout.tokens = tokens;
    rig.layout.offsets = rig.offsets;
    const int64_t h = p->query_heads, g = p->key_heads, e = p->head_dimension;
    rig.shape = (AttentionShape){h, g, e, 1.0f / sqrtf((float)e), p->causal};
    rig.q = make_tensor(&rig, 0, p->shift, act, tokens, h, e);
    rig.k = make_tensor(&rig, 1, p->shift, act, tokens, g, e);
    rig.v = make_tensor(&rig, 2, p->shift, act, tokens, g, e);
    rig.dout = make_tensor(&rig, 3, p->shift, act, tokens, h, e);
    rig.result[0] = make_tensor(&rig, 4, p->shift, act, tokens, h, e);
    rig.result[1] = make_tensor(&rig, 5, 0, DTYPE_F32, 1, h, tokens);
    rig.result[2] = make_tensor(&rig, 6, p->shift, act, tokens, h, e);
    rig.result[3] = make_tensor(&rig, 7, p->shift, act, tokens, g, e);
    rig.result[4] = make_tensor(&rig, 8, p->shift, act, tokens, g, e);
    return rig;
}

static void close_rig(Rig *rig) {
    for (int i = 0; i < TENSORS; ++i) device_release(rig->device, rig->memory[i]);
    device_release(rig->device, rig->offsets);
    arena_destroy(rig->arena);
    device_close(rig->device);
}

/* Runs both passes on poisoned results; the caller frees their bytes. given: NULL, or the results whose out and lse the
 * backward pass reads, for a comparison of its own arithmetic. */
static void run_engine(Rig *rig, AttentionEngine engine, void *const *given, void *bytes[RESULTS]) {
    succeeds(device_set_attention(rig->device, engine));
    rig->layout.host_offsets = rig->host_offsets; /* here, where the rig no longer moves */
    Tensor *r = rig->result;
    for (int i = 0; i < RESULTS; ++i) {
        bytes[i] = malloc(tensor_bytes(r[i]));
        memset(bytes[i], 0xff, tensor_bytes(r[i]));
        succeeds(device_upload(rig->device, r[i].data, bytes[i], tensor_bytes(r[i])));
    }
    const Ops *ops = rig->device->ops;
    succeeds(ops->attention_forward(rig->device, rig->arena, r[0], r[1], rig->q, rig->k, rig->v, &rig->layout, rig->shape));
    for (int i = 0; i < 2; ++i) {
        succeeds(device_download(rig->device, bytes[i], r[i].data, tensor_bytes(r[i])));
        if (given) succeeds(device_upload(rig->device, r[i].data, given[i], tensor_bytes(r[i])));
    }
    succeeds(ops->attention_backward(rig->device, rig->arena, r[2], r[3], r[4], rig->dout, r[0], r[1], rig->q, rig->k, rig->v,
                                     &rig->layout, rig->shape));
    for (int i = 2; i < RESULTS; ++i) succeeds(device_download(rig->device, bytes[i], r[i].data, tensor_bytes(r[i])));
}

static void free_bytes(void *bytes[RESULTS]) {
    for (int i = 0; i < RESULTS; ++i) free(bytes[i]);
}

/* Largest difference as a share of the row's largest value; values below the floor, where exact results are zero, count as
 * the floor. */
static double largest_difference(Tensor tensor, const void *a, const void *b) {
    const int64_t width = tensor.dtype == DTYPE_F32 ? 1 : tensor.shape[2];
    double worst = 0;
    for (int64_t row = 0; row < tensor_elements(tensor) / width; ++row) {
        double largest = tensor.dtype == DTYPE_F32 ? 0.5 : 1e-3, difference = 0;
        for (int64_t i = row * width; i < (row + 1) * width; ++i) {
            const double x = tensor.dtype == DTYPE_F32 ? ((const float *)a)[i] : bf16_value(((const uint16_t *)a)[i]);
            const double y = tensor.dtype == DTYPE_F32 ? ((const float *)b)[i] : bf16_value(((const uint16_t *)b)[i]);
            if (!isfinite(x) || !isfinite(y)) return INFINITY;
            largest = fmax(largest, fabs(y));
            difference = fmax(difference, fabs(x - y));
        }
        worst = fmax(worst, difference / largest);
    }
    return worst;
}

/* Both round out and the gradients to bf16 (half a unit each, 2^-9), the tensor cores the weights before: four units. */
static void check_against_plain(const Problem *p, AttentionEngine engine) {
    Rig rig = open_rig(p, DTYPE_BF16);
    void *asked[RESULTS], *again[RESULTS], *plain[RESULTS];
    run_engine(&rig, ATTENTION_PLAIN, NULL, plain);
    run_engine(&rig, engine, plain, asked);
    run_engine(&rig, engine, plain, again);
    bool differ = false;
    for (int i = 0; i < RESULTS; ++i) {
        assert_memory_equal(asked[i], again[i], tensor_bytes(rig.result[i]));
        differ = differ || memcmp(asked[i], plain[i], tensor_bytes(rig.result[i]));
        const double difference = largest_difference(rig.result[i], asked[i], plain[i]), allowed = i == 1 ? 1e-5 : 0x1p-6;
        if (!(difference <= allowed))
            fail_msg("%s, engine %d, %d/%d heads of %d, causal %d, first of %d sequences %d tokens: differs by %g of the row's "
                     "largest value, more than %g",
                     names[i], (int)engine, (int)p->query_heads, (int)p->key_heads, (int)p->head_dimension, p->causal,
                     (int)rig.layout.sequences, (int)p->lengths[0], difference, allowed);
    }
    if (rig.layout.longest > 1) assert_true(differ); /* else one engine was used for both */
    free_bytes(asked);
    free_bytes(again);
    free_bytes(plain);
    close_rig(&rig);
}

static void check_engines_agree(const Problem *p) { check_against_plain(p, ATTENTION_TENSOR_CORES); }

static void test_engines_agree(void **state) {
    (void)state;
    for (int head_dimension = 64; head_dimension <= 128; head_dimension *= 2)
        for (int causal = 0; causal < 2; ++causal) {
            check_engines_agree(&(Problem){{LONG, 1, 64, OTHER}, 4, 2, head_dimension, causal, 0});
            check_engines_agree(&(Problem){{129, 128}, 3, 1, head_dimension, causal, 0});
        }
}

/* What cuDNN may run of attention here; without it the calling test is skipped, and says why. */
static CudnnPasses require_cudnn(void) {
    const char *why;
    if (!device_cuda_available(&why)) skip();
    Device *device;
#ifdef ADAMEM_CUDA_ON_HOST
    host_set_cudnn(true);
    host_set_capability(9);
#endif
    succeeds(device_open(BACKEND_CUDA, 0, 0, &device));
    assert_int_equal(device->cudnn, CUDNN_NO_PASS);
    Status status = device_set_attention(device, ATTENTION_CUDNN);
    const CudnnPasses passes = device->cudnn;
    if (status) print_message("skipped: %s\n", status_message(status));
    if (status) assert_int_equal(passes, CUDNN_NO_PASS);
    status_free(status);
    succeeds(device_set_attention(device, ATTENTION_AUTO)); /* does without */
    assert_int_equal(device->cudnn, passes);
    device_close(device);
    if (passes == CUDNN_NO_PASS) skip();
    return passes;
}

/* Every head shape of Qwen2.5 and ungrouped heads; odd lengths, one token, one sequence, and more than a power of two. */
static void test_cudnn_agrees(void **state) {
    (void)state;
    static const int64_t heads[][3] = {{14, 2, 64}, {12, 2, 128}, {16, 2, 128}, {28, 4, 128}, {4, 4, 64}, {3, 1, 128}};
    static const int64_t lengths[][MAX_LENGTHS] = {
        {1}, {64}, {65}, {1, 1, 1}, {129, 128, 127}, {33, 1, 256, 2, 100, 63, 1, 7, 300}, {1000, 24}};
    (void)require_cudnn();
#ifdef ADAMEM_CUDA_ON_HOST /* what surrounds cuDNN, around a stand-in */
    static const int64_t few[MAX_LENGTHS] = {17, 1, 30, 2, 9};
    for (size_t h = 0; h < sizeof heads / sizeof *heads; ++h) {
        Problem p = {.query_heads = heads[h][0], .key_heads = heads[h][1], .head_dimension = heads[h][2], .causal = h % 2};
        memcpy(p.lengths, few, sizeof p.lengths);
        check_against_plain(&p, ATTENTION_CUDNN);
    }
    return;
#endif
    for (size_t h = 0; h < sizeof heads / sizeof *heads; ++h)
        for (size_t l = 0; l < sizeof lengths / sizeof *lengths; ++l)
            for (int causal = 0; causal < 2; ++causal) {
                Problem p = {
                    .query_heads = heads[h][0], .key_heads = heads[h][1], .head_dimension = heads[h][2], .causal = causal};
                memcpy(p.lengths, lengths[l], sizeof p.lengths);
                check_against_plain(&p, ATTENTION_CUDNN);
            }
    Problem many = {.query_heads = 14, .key_heads = 2, .head_dimension = 64, .causal = true};
    for (int s = 0; s < MAX_LENGTHS; ++s) many.lengths[s] = 1 + s * 37 % 150;
    check_against_plain(&many, ATTENTION_CUDNN);
    check_against_plain(&(Problem){{LONG, 1, 64, OTHER}, 4, 2, 128, true, 0}, ATTENTION_CUDNN);
}

/* cuDNN's bits are not ours: it was used where it should be, and not where it cannot. */
static void test_cudnn_is_used(void **state) {
    (void)state;
    const CudnnPasses passes = require_cudnn();
    for (int shift = 0; shift <= 2; shift += 2) {
        Rig rig = open_rig(&(Problem){{100, 57}, 16, 2, 128, true, (size_t)shift}, DTYPE_BF16);
        void *own[RESULTS], *asked[RESULTS];
        run_engine(&rig, ATTENTION_TENSOR_CORES, NULL, own);
        run_engine(&rig, ATTENTION_AUTO, own, asked);
        const bool out = memcmp(own[0], asked[0], tensor_bytes(rig.result[0])) != 0;
        const bool dq = memcmp(own[2], asked[2], tensor_bytes(rig.result[2])) != 0;
        assert_int_equal(out, shift == 0);
        assert_int_equal(dq, shift == 0 && passes == CUDNN_BOTH_PASSES);
        free_bytes(own);
        free_bytes(asked);
        close_rig(&rig);
    }
}

static void check_plain_is_used(const Problem *p, DType act) {
    Rig rig = open_rig(p, act);
    void *asked[RESULTS], *plain[RESULTS];
    run_engine(&rig, ATTENTION_TENSOR_CORES, NULL, asked);
    run_engine(&rig, ATTENTION_PLAIN, NULL, plain);
    for (int i = 0; i < RESULTS; ++i) {
        assert_memory_equal(asked[i], plain[i], tensor_bytes(rig.result[i]));
        assert_true(largest_difference(rig.result[i], asked[i], plain[i]) == 0); /* finite: written */
    }
    free_bytes(asked);
    free_bytes(plain);
    close_rig(&rig);
}

static void test_what_tensor_cores_cannot_take(void **state) {
    (void)state;
    check_plain_is_used(&(Problem){{40, 3}, 2, 1, 96, true, 0}, DTYPE_BF16);
    check_plain_is_used(&(Problem){{40, 3}, 2, 1, 64, true, 2}, DTYPE_BF16);
    check_plain_is_used(&(Problem){{40, 3}, 2, 1, 64, false, 0}, DTYPE_F32);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_engines_agree),
        cmocka_unit_test(test_what_tensor_cores_cannot_take),
        cmocka_unit_test(test_cudnn_agrees),
        cmocka_unit_test(test_cudnn_is_used),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
