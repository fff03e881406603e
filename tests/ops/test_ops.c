/* The CPU backend against the float64 reference, with 1, 2, 3 and 4 threads: test_ops [level], level 0 being the best instruction
 * set of this machine. */
#include "kernels/ops_cpu.h"
#include "tests/ops/op_cases.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    const CpuBackend *backend = cpu_backend_supported(argc > 1 ? atoi(argv[1]) : 0);
    if (!backend) {
        printf("this machine has no such level: skipped\n");
        return 77;
    }
    printf("ops compiled for %s\n", backend->name);
    return run_op_tests(BACKEND_CPU, backend->ops);
}
