/* The CPU backend against the float64 reference, with 1, 2, 3 and 4 threads. */
#include "tests/ops/op_cases.h"

int main(void) { return run_op_tests(BACKEND_CPU); }
