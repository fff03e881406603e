/* The CPU backend against the float64 reference, with 1 to RUNS threads (4 unless told): test_ops [LEVEL [RUNS]]. Level 0 is the
 * best instruction set of this machine. */
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
    const OpTestPlan plan = {.kind = BACKEND_CPU, .ops = backend->ops, .runs = argc > 2 ? atoi(argv[2]) : 4};
    return run_op_plan(&plan);
}
