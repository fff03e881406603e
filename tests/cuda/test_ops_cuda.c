/* The CUDA backend against the float64 reference, four times over for the same bits. */
#include "tests/ops/op_cases.h"

int main(void) { return run_op_tests(BACKEND_CUDA, NULL); }
