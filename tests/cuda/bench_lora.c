/* Times the two forms of a linear with an adapter at the shapes of Qwen2.5-7B, bf16: bench_lora [rank [most_tokens]].
 *
 * thin: what model/linear.c does. Forward P = dropout(x) A^T, Y = s P B^T, Y += x W^T; backward Q = dY B, dX = dY W.
 * after: the thin product behind the wide one instead, so that it reads and writes Y.
 * wide: W stored as [W | B] and x as [x | s P]: Y, and (dX, dY B), are one product each. Its rows are `rank` longer, or rounded
 * up to 64, whichever is faster. In both forms P is made the same way; what is common to them backward (dA, dB) is not timed.
 * base: the product with W alone. The columns are the median of the calls in ms; forms take turns, so that all meet the same
 * clock. */
#include "kernels/ops.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CALLS = 15, FORMS = 8 };

typedef struct Linear {
    const char *name;
    int64_t outputs, inputs;
} Linear;

typedef struct Bench {
    Device *device;
    Arena *arena;
    SequenceLayout layout;
    int64_t tokens, outputs, inputs, rank;
    /* Memory for the largest use of each: seen with other widths by each form. */
    void *x, *weight, *y, *dx, *a, *b, *p;
} Bench;

static void check(Status status) {
    if (!status) return;
    fprintf(stderr, "bench_lora: %s\n", status_message(status));
    exit(status_exit_code(status));
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* bf16 values in [-1, 1). */
static void *make(Device *device, int64_t elements) {
    uint16_t *host = malloc((size_t)elements * sizeof *host);
    void *memory;
    uint32_t random = 12345;
    if (!host) check(FAILURE("out of memory"));
    for (int64_t i = 0; i < elements; ++i) {
        random = random * 1664525u + 1013904223u;
        const float x = (float)(random >> 8) * 0x1p-23f - 1.0f;
        uint32_t bits;
        memcpy(&bits, &x, sizeof bits);
        host[i] = (uint16_t)(bits >> 16);
    }
    check(device_allocate(device, (size_t)elements * sizeof *host, &memory));
    check(device_upload(device, memory, host, (size_t)elements * sizeof *host));
    free(host);
    return memory;
}

static Tensor matrix(void *data, int64_t rows, int64_t columns) { return tensor_2d(data, DTYPE_BF16, rows, columns); }

static void product(Bench *b, Tensor c, Tensor a, Tensor other, bool transpose, float beta) {
    check(b->device->ops->matmul(b->device, b->arena, c, a, false, other, transpose, tensor_absent(), 1.0f, beta));
}

static void down(Bench *b) {
    check(b->device->ops->lora_down(b->device, matrix(b->p, b->tokens, b->rank), matrix(b->x, b->tokens, b->inputs),
                                    matrix(b->a, b->rank, b->inputs), (LoraStack){1, {b->rank}}, &b->layout,
                                    (Dropout){.p = 0.05f, .seed = 1}));
}
static void up(Bench *b, float beta) {
    product(b, matrix(b->y, b->tokens, b->outputs), matrix(b->p, b->tokens, b->rank), matrix(b->b, b->outputs, b->rank), true,
            beta);
}
static void forward(Bench *b, int64_t extra, float beta) {
    product(b, matrix(b->y, b->tokens, b->outputs), matrix(b->x, b->tokens, b->inputs + extra),
            matrix(b->weight, b->outputs, b->inputs + extra), true, beta);
}
static void backward(Bench *b, int64_t extra, float beta) {
    product(b, matrix(b->dx, b->tokens, b->inputs + extra), matrix(b->y, b->tokens, b->outputs),
            matrix(b->weight, b->outputs, b->inputs + extra), false, beta);
}
static void upstream(Bench *b) {
    product(b, matrix(b->p, b->tokens, b->rank), matrix(b->y, b->tokens, b->outputs), matrix(b->b, b->outputs, b->rank), false,
            0);
}

static int64_t padded(const Bench *b) { return (b->inputs + b->rank + 63) / 64 * 64 - b->inputs; }

/* Forms 0..4 forward: base, thin, after, wide, wide with padding; 5..7 backward: thin, wide, wide with padding. */
static void run_form(Bench *b, int form) {
    switch (form) {
    case 0: forward(b, 0, 0); break;
    case 1: down(b), up(b, 0), forward(b, 0, 1); break;
    case 2: down(b), forward(b, 0, 0), up(b, 1); break;
    case 3: down(b), forward(b, b->rank, 0); break;
    case 4: down(b), forward(b, padded(b), 0); break;
    case 5: upstream(b), backward(b, 0, 1); break;
    case 6: backward(b, b->rank, 0); break;
    default: backward(b, padded(b), 0); break;
    }
}

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void bench_linear(Bench *b, const Linear *linear, double *sum_thin, double *sum_wide) {
    double seconds[FORMS][CALLS], median[FORMS];
    for (int call = -2; call < CALLS; ++call)
        for (int form = 0; form < FORMS; ++form) {
            check(device_synchronize(b->device));
            const double start = now();
            run_form(b, form);
            check(device_synchronize(b->device));
            if (call >= 0) seconds[form][call] = now() - start;
        }
    for (int form = 0; form < FORMS; ++form) {
        qsort(seconds[form], CALLS, sizeof *seconds[form], by_value);
        median[form] = 1e3 * seconds[form][CALLS / 2];
    }
    const double wide_forward = median[3] < median[4] ? median[3] : median[4];
    const double wide_backward = median[6] < median[7] ? median[6] : median[7];
    const double flops = 2.0 * (double)b->tokens * (double)b->outputs * (double)b->inputs;
    printf("%-5s %5lld x %5lld %6lld %9.3f %7.1f %9.3f %9.3f %9.3f %9.3f %9.3f %8.3f\n", linear->name, (long long)b->outputs,
           (long long)b->inputs, (long long)b->tokens, median[0], flops / median[0] / 1e9, median[1], median[2], wide_forward,
           median[5], wide_backward, (wide_forward + wide_backward) / (median[1] + median[5]));
    fflush(stdout);
    *sum_thin += median[1] + median[5];
    *sum_wide += wide_forward + wide_backward;
}

static void bench_tokens(Device *device, int64_t tokens, int64_t rank) {
    static const Linear linears[] = {{"q", 3584, 3584},     {"k", 512, 3584},    {"v", 512, 3584},     {"o", 3584, 3584},
                                     {"gate", 18944, 3584}, {"up", 18944, 3584}, {"down", 3584, 18944}};
    double thin = 0, wide = 0;
    for (size_t i = 0; i < sizeof linears / sizeof *linears; ++i) {
        Bench b = {.device = device, .tokens = tokens, .outputs = linears[i].outputs, .inputs = linears[i].inputs, .rank = rank};
        const int64_t widest = b.inputs + padded(&b);
        int32_t *zeros;
        void *positions;
        check(arena_create(device, (size_t)64 << 20, &b.arena));
        zeros = calloc((size_t)tokens, sizeof *zeros);
        check(device_allocate(device, (size_t)tokens * sizeof *zeros, &positions));
        check(device_upload(device, positions, zeros, (size_t)tokens * sizeof *zeros));
        free(zeros);
        b.layout = (SequenceLayout){.tokens = tokens, .sequences = 1, .longest = tokens};
        b.layout.positions = b.layout.sample_of_token = positions;
        b.x = make(device, tokens * widest), b.weight = make(device, b.outputs * widest), b.dx = make(device, tokens * widest);
        b.y = make(device, tokens * b.outputs), b.a = make(device, rank * b.inputs), b.b = make(device, rank * b.outputs);
        b.p = make(device, tokens * rank);
        bench_linear(&b, &linears[i], &thin, &wide);
        void *all[] = {b.x, b.weight, b.dx, b.y, b.a, b.b, b.p, positions};
        for (size_t k = 0; k < sizeof all / sizeof *all; ++k) device_release(device, all[k]);
        arena_destroy(b.arena);
    }
    printf("layer, T = %lld: thin %.3f ms, wide %.3f ms, wide/thin %.3f\n", (long long)tokens, thin, wide, wide / thin);
}

int main(int argc, char **argv) {
    const int64_t rank = argc > 1 ? atoll(argv[1]) : 16, most = argc > 2 ? atoll(argv[2]) : 8192;
    Device *device;
    Status status = device_open(BACKEND_CUDA, 0, 0, &device);
    if (status) {
        printf("no GPU: %s\n", status_message(status));
        status_free(status);
        return 0;
    }
    if (rank < 1 || most < 1) check(INVALID_INPUT("usage: bench_lora [rank [most_tokens]]"));
    printf("%s, r = %lld; ms\n", device->name, (long long)rank);
    printf("%-5s %13s %6s %9s %7s %9s %9s %9s %9s %9s %8s\n", "", "N x K", "T", "base", "TFLOP/s", "thin", "after", "wide",
           "dX thin", "dX wide", "ratio");
    for (int64_t tokens = 4096; tokens <= 8192; tokens *= 2) bench_tokens(device, tokens < most ? tokens : most, rank);
    device_close(device);
    return 0;
}
