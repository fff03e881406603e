/* The low-rank ops: stacks of one to three adapters of equal and of mixed ranks, with dropout and without. */
#include "tests/ops/op_cases.h"
#include "tests/ops/reference.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int64_t rank_of(LoraStack stack) {
    int64_t sum = 0;
    for (int i = 0; i < stack.count; ++i) sum += stack.ranks[i];
    return sum;
}

static Tolerance of_sum(DType dtype, double terms, double largest) {
    Tolerance tolerance = one_rounding(dtype);
    tolerance.absolute = 2e-7 * sqrt(terms) * largest; /* where a sum cancels */
    return tolerance;
}

static void check_down(Run *run, DType act, int64_t width, LoraStack stack, Dropout dropout) {
    int64_t t = run->layout.tokens, rank = rank_of(stack);
    Value x = run_random(run, act, SHAPE2(t, width), 1.0), a = run_random(run, act, SHAPE2(rank, width), 0.3);
    Value p = run_poisoned(run, act, SHAPE2(t, rank));
    run_succeeds(run, run->device->ops->lora_down(run->device, p.tensor, x.tensor, a.tensor, stack, &run->layout, dropout));
    if (run->compare) reference_lora_down(p.host, x.host, a.host, stack, &run->layout, dropout, width);
    run_expect(run, p, p.host, of_sum(act, (double)width, 1), "p");
}

static void check_backward(Run *run, DType act, int64_t width, LoraStack stack, Dropout dropout, bool accumulate, bool input) {
    int64_t t = run->layout.tokens, rank = rank_of(stack);
    Value x = run_random(run, act, SHAPE2(t, width), 1.0), a = run_random(run, act, SHAPE2(rank, width), 0.3);
    Value q = run_random(run, act, SHAPE2(t, rank), 1.0), da = run_random(run, DTYPE_F32, SHAPE2(rank, width), 1.0);
    Value dx = accumulate ? run_random(run, act, SHAPE2(t, width), 1.0) : run_poisoned(run, act, SHAPE2(t, width));
    if (!input) dx.tensor = tensor_absent();
    run_succeeds(run, run->device->ops->lora_down_backward(run->device, run->arena, da.tensor, dx.tensor, accumulate, q.tensor,
                                                           x.tensor, a.tensor, stack, &run->layout, dropout));
    double *expected = calloc((size_t)(t * width) + 1, sizeof *expected);
    if (accumulate) memcpy(expected, dx.host, (size_t)(t * width) * sizeof *expected);
    if (run->compare)
        reference_lora_down_backward(da.host, expected, q.host, x.host, a.host, stack, &run->layout, dropout, width);
    run_expect(run, da, da.host, of_sum(DTYPE_F32, (double)t, 1), "da");
    if (input) run_expect(run, dx, expected, of_sum(act, (double)rank, 1), "dx");
    free(expected);
}

static const Dropout kept = {.p = 0}, dropped = {.p = 0.3f, .seed = 0x123456789abcdefu, .step = 9, .input_id = 3};

static void lora_down(Run *run, const Shape *s, DType act) {
    check_down(run, act, s->width, (LoraStack){3, {s->rank, s->rank, s->rank}}, dropped);
    check_down(run, act, s->width, (LoraStack){3, {s->rank, 8, s->rank + 3}}, kept);
    check_down(run, act, s->hidden, (LoraStack){2, {16, 24}}, dropped);
    check_down(run, act, s->hidden, (LoraStack){1, {s->rank}}, dropped);
    check_down(run, act, s->hidden, (LoraStack){1, {s->rank}}, kept);
}

static void lora_down_backward(Run *run, const Shape *s, DType act) {
    check_backward(run, act, s->width, (LoraStack){3, {s->rank, s->rank, s->rank}}, dropped, true, true);
    check_backward(run, act, s->width, (LoraStack){3, {s->rank, 8, s->rank + 3}}, kept, false, true);
    check_backward(run, act, s->hidden, (LoraStack){2, {16, 24}}, dropped, false, true);
    check_backward(run, act, s->hidden, (LoraStack){1, {s->rank}}, dropped, true, false);
    check_backward(run, act, s->hidden, (LoraStack){1, {s->rank}}, kept, true, true);
}

/* Several blocks of everything: tokens, channels and ranks. */
static void lora_down_large(Run *run, const Shape *s, DType act) {
    if (strcmp(s->name, "many-tiles") != 0) return;
    const LoraStack stack = {3, {64, 40, 32}};
    check_down(run, act, 1048, stack, dropped);
    check_backward(run, act, 200, stack, dropped, true, true);
}

/* A dropped infinity is gone, a kept one is not. */
static void lora_down_infinity(Run *run, const Shape *s, DType act) {
    if (strcmp(s->name, "odd") != 0) return;
    enum { WIDTH = 64 };
    int64_t t = run->layout.tokens;
    double *host = calloc((size_t)(t * WIDTH), sizeof *host), *ones = calloc(WIDTH, sizeof *ones);
    for (int64_t i = 0; i < t * WIDTH; ++i)
        host[i] = reference_dropout_keeps(&run->layout, dropped, i / WIDTH, i % WIDTH) ? 1 : INFINITY;
    for (int i = 0; i < WIDTH; ++i) ones[i] = 1;
    Value x = run_values(run, act, SHAPE2(t, WIDTH), host), a = run_values(run, act, SHAPE2(1, WIDTH), ones);
    Value p = run_poisoned(run, act, SHAPE2(t, 1));
    run_succeeds(
        run, run->device->ops->lora_down(run->device, p.tensor, x.tensor, a.tensor, (LoraStack){1, {1}}, &run->layout, dropped));
    for (int64_t i = 0; i < t * WIDTH; ++i)
        if (isinf(host[i])) host[i] = 0;
    reference_lora_down(p.host, host, ones, (LoraStack){1, {1}}, &run->layout, dropped, WIDTH);
    run_expect(run, p, p.host, one_rounding(act), "p");
    free(host);
    free(ones);
}

const OpCase lora_cases[] = {
    {"lora_down", lora_down, true},
    {"lora_down_backward", lora_down_backward, true},
    {"lora_down large", lora_down_large, true},
    {"lora_down dropped infinity", lora_down_infinity, true},
    {NULL, NULL, false},
};
