#include "tests/ops/op_cases.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Nothing, the least, odd sizes, blocks that just fit and just do not, several key ranges, the widest head. */
static const Shape shapes[] = {
    {"empty", {0}, 16, 2, 1, 16, 24, 32, 4},
    {"one-token", {1}, 8, 1, 1, 16, 12, 7, 1},
    {"odd", {3, 5, 1}, 33, 3, 1, 24, 37, 101, 5},
    {"blocks", {64, 65, 1, 130}, 96, 4, 2, 32, 200, 515, 16},
    {"many-tiles", {300, 215}, 256, 4, 2, 64, 384, 1500, 48},
    {"long", {1100}, 64, 2, 1, 128, 130, 5003, 8},
    {"wide-head", {70}, 128, 1, 1, 256, 64, 65, 64},
};
enum { SHAPES = sizeof shapes / sizeof shapes[0], MAX_CASES = 128, REPEATS = 4 };

typedef struct Parameter {
    const OpCase *op;
    DType act;
    Device **devices; /* [REPEATS]: the first is compared with the reference, all with each other */
    char name[64];
} Parameter;

static void run_case(void **state) {
    const Parameter *p = *state;
    double worst = 0;
    for (int s = 0; s < SHAPES; ++s) {
        uint64_t transcript = 0;
        for (int repeat = 0; repeat < REPEATS; ++repeat) {
            char label[320];
            snprintf(label, sizeof label, "%s on %s, shape %s", p->name, p->devices[repeat]->name, shapes[s].name);
            Run run;
            run_open(&run, p->devices[repeat], label, &shapes[s], repeat == 0);
            p->op->body(&run, &shapes[s], p->act);
            run_close(&run);
            if (repeat == 0) transcript = run.transcript;
            worst = fmax(worst, run.worst);
            if (run.transcript != transcript) fail_msg("%s: other bits than on %s", label, p->devices[0]->name);
        }
    }
    if (worst > 0) print_message("max_error %s %.3f\n", p->name, worst); /* as a share of what is allowed */
}

static int add_cases(Parameter *parameters, int count, const OpCase *cases, Device **devices) {
    for (; cases->name; ++cases)
        for (int bf16 = 0; bf16 <= (cases->typed ? 1 : 0); ++bf16) {
            Parameter *p = &parameters[count++];
            *p = (Parameter){.op = cases, .act = bf16 ? DTYPE_BF16 : DTYPE_F32, .devices = devices};
            snprintf(p->name, sizeof p->name, "%s%s", cases->name, !cases->typed ? "" : bf16 ? " BF16" : " F32");
        }
    return count;
}

int run_op_tests(BackendKind kind, const Ops *ops) {
    Device *devices[REPEATS] = {NULL};
    for (int i = 0; i < REPEATS; ++i) {
        Status status = device_open(kind, 0, i + 1, &devices[i]); /* threads 1, 2, 3, 4; a GPU has no use for the number */
        if (status) {
            fprintf(stderr, "cannot open the device: %s\n", status_message(status));
            status_free(status);
            return 1;
        }
        if (ops) devices[i]->ops = ops;
    }
    static Parameter parameters[MAX_CASES];
    static struct CMUnitTest tests[MAX_CASES];
    int count = add_cases(parameters, 0, linear_cases, devices);
    count = add_cases(parameters, count, network_cases, devices);
    count = add_cases(parameters, count, training_cases, devices);
    count = add_cases(parameters, count, gradient_cases, devices);
    for (int i = 0; i < count; ++i)
        tests[i] = (struct CMUnitTest){.name = parameters[i].name, .test_func = run_case, .initial_state = &parameters[i]};
    int failed = _cmocka_run_group_tests("ops", tests, (size_t)count, NULL, NULL);
    for (int i = 0; i < REPEATS; ++i) device_close(devices[i]);
    return failed;
}
