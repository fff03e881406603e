/* Times attention on the GPU, bf16 and causal, at the head shapes of Qwen2.5: bench_attention [most_tokens].
 *
 * TFLOP/s as the FlashAttention papers count: 2 T^2 E H forward for the causal half of two products, 2.5 times that backward,
 * whatever an implementation computes again. Each row is the median of its calls; the plain kernel is timed at the shortest
 * length only. */
#include "kernels/cuda/ops_cuda.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CALLS = 11, SEQUENCES = 16, TENSORS = 9 };

typedef struct Heads {
    const char *model;
    int64_t query_heads, key_heads, head_dimension;
} Heads;

typedef struct Bench {
    Device *device;
    Arena *arena;
    AttentionShape shape;
    SequenceLayout layout;
    int32_t offsets[SEQUENCES + 1];
    void *memory[TENSORS + 1];
    Tensor q, k, v, out, lse, dout, dq, dk, dv;
} Bench;

static void check(Status status) {
    if (!status) return;
    fprintf(stderr, "bench_attention: %s\n", status_message(status));
    exit(status_exit_code(status));
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Values in [-1, 1). */
static Tensor make(Bench *b, int index, DType dtype, int64_t n0, int64_t n1, int64_t n2) {
    Tensor t = {.dtype = dtype, .dimensions = 3, .shape = {n0, n1, n2, 1}};
    uint16_t *host = calloc(1, tensor_bytes(t));
    uint32_t random = 12345u + (uint32_t)index;
    for (int64_t i = 0; dtype == DTYPE_BF16 && i < tensor_elements(t); ++i) {
        random = random * 1664525u + 1013904223u;
        const float x = (float)(random >> 8) * 0x1p-23f - 1.0f;
        uint32_t bits;
        memcpy(&bits, &x, sizeof bits);
        host[i] = (uint16_t)(bits >> 16);
    }
    check(device_allocate(b->device, tensor_bytes(t), &b->memory[index]));
    t.data = b->memory[index];
    check(device_upload(b->device, t.data, host, tensor_bytes(t)));
    free(host);
    return t;
}

static void make_operands(Bench *b, const Heads *heads, int64_t tokens, int sequences) {
    const int64_t h = heads->query_heads, g = heads->key_heads, e = heads->head_dimension;
    for (int s = 0; s <= sequences; ++s) b->offsets[s] = (int32_t)(tokens / sequences * s);
    b->layout =
        (SequenceLayout){.tokens = tokens, .sequences = sequences, .longest = tokens / sequences, .host_offsets = b->offsets};
    check(device_allocate(b->device, sizeof b->offsets, &b->memory[TENSORS]));
    check(device_upload(b->device, b->memory[TENSORS], b->offsets, sizeof b->offsets));
    b->layout.offsets = b->memory[TENSORS];
    b->shape = (AttentionShape){h, g, e, 1.0f / sqrtf((float)e), true};
    b->q = make(b, 0, DTYPE_BF16, tokens, h, e), b->k = make(b, 1, DTYPE_BF16, tokens, g, e);
    b->v = make(b, 2, DTYPE_BF16, tokens, g, e), b->out = make(b, 3, DTYPE_BF16, tokens, h, e);
    b->lse = make(b, 4, DTYPE_F32, 1, h, tokens), b->dout = make(b, 5, DTYPE_BF16, tokens, h, e);
    b->dq = make(b, 6, DTYPE_BF16, tokens, h, e), b->dk = make(b, 7, DTYPE_BF16, tokens, g, e);
    b->dv = make(b, 8, DTYPE_BF16, tokens, g, e);
}

static void release_operands(Bench *b) {
    for (int i = 0; i <= TENSORS; ++i) device_release(b->device, b->memory[i]);
}

static void forward(Bench *b) {
    check(b->device->ops->attention_forward(b->device, b->arena, b->out, b->lse, b->q, b->k, b->v, &b->layout, b->shape));
}

static void backward(Bench *b) {
    check(b->device->ops->attention_backward(b->device, b->arena, b->dq, b->dk, b->dv, b->dout, b->out, b->lse, b->q, b->k, b->v,
                                             &b->layout, b->shape));
}

static int compare_doubles(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median_seconds(Bench *b, void (*call)(Bench *)) {
    double seconds[CALLS];
    call(b);
    check(device_synchronize(b->device));
    for (int i = 0; i < CALLS; ++i) {
        const double begin = now();
        call(b);
        check(device_synchronize(b->device));
        seconds[i] = now() - begin;
    }
    qsort(seconds, CALLS, sizeof *seconds, compare_doubles);
    return seconds[CALLS / 2];
}

/* Of "cudnn", passes that it refuses are ours: the log says which. */
static const char *engine_name(AttentionEngine engine) {
    return engine == ATTENTION_PLAIN ? "plain" : engine == ATTENTION_CUDNN ? "cudnn" : "tensor cores";
}

static void bench(Device *device, const Heads *heads, int64_t tokens, int sequences, AttentionEngine engine) {
    Bench b = {.device = device};
    check(arena_create(device, (size_t)4 << 30, &b.arena)); /* cuDNN's scratch */
    make_operands(&b, heads, tokens, sequences);
    check(device_set_attention(device, engine));
    const double length = (double)b.layout.longest, width = (double)(heads->query_heads * heads->head_dimension);
    const double flops = 2 * length * length * width * sequences;
    const double ahead = median_seconds(&b, forward), back = median_seconds(&b, backward);
    printf("%-6s E=%-4d %2d/%d heads %3d x %6d tokens  %-12s forward %9.3f ms %6.1f TFLOP/s  backward %9.3f ms %6.1f TFLOP/s\n",
           heads->model, (int)heads->head_dimension, (int)heads->query_heads, (int)heads->key_heads, sequences,
           (int)b.layout.longest, engine_name(engine), 1e3 * ahead, flops / ahead / 1e12, 1e3 * back, 2.5 * flops / back / 1e12);
    fflush(stdout);
    release_operands(&b);
    arena_destroy(b.arena);
}

int main(int argc, char **argv) {
    static const Heads heads[] = {{"0.5B", 14, 2, 64}, {"3B", 16, 2, 128}, {"7B", 28, 4, 128}};
    const int64_t most = argc > 1 ? atoll(argv[1]) : 16384;
    const char *why;
    if (!device_cuda_available(&why)) {
        printf("NOT RUN: no GPU: %s\n", why);
        return 0;
    }
    Device *device;
    check(device_open(BACKEND_CUDA, 0, 0, &device));
    printf("%s\n", device->name);
    Status status = device_set_attention(device, ATTENTION_CUDNN);
    const bool cudnn = !status;
    if (status) printf("cudnn NOT RUN: %s\n", status_message(status));
    status_free(status);
    for (int i = 0; i < 3; ++i) {
        bench(device, &heads[i], 1024, 1, ATTENTION_PLAIN);
        for (AttentionEngine engine = cudnn ? ATTENTION_CUDNN : ATTENTION_TENSOR_CORES; engine <= ATTENTION_TENSOR_CORES;
             ++engine) {
            for (int64_t tokens = 1024; tokens <= most; tokens *= 4) bench(device, &heads[i], tokens, 1, engine);
            bench(device, &heads[i], most, SEQUENCES, engine);
        }
    }
    device_close(device);
    return 0;
}
