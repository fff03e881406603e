/* The CUDA backend against the float64 reference, four times over for the same bits.
 *
 *   test_ops_cuda [cudnn | small]
 *
 * cudnn: attention only, by cuDNN in the place of our kernels. small: short sequences, and each case once, for
 * compute-sanitizer, which makes kernels many times slower. */
#include "tests/ops/op_cases.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

int main(int argc, char **argv) {
    OpTestPlan plan = {.kind = BACKEND_CUDA, .runs = 4};
    if (argc == 1) return run_op_plan(&plan);
    if (argc == 2 && strcmp(argv[1], "small") == 0) {
        plan.runs = 1;
        plan.most_tokens = 140;
        return run_op_plan(&plan);
    }
    if (argc != 2 || strcmp(argv[1], "cudnn") != 0) {
        fprintf(stderr, "usage: test_ops_cuda [cudnn | small]\n");
        return 2;
    }
    plan.attention = ATTENTION_CUDNN;
    cmocka_set_test_filter("attention*");
    return run_op_plan(&plan);
}
