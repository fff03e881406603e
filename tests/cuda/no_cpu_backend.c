/* Stands in for the CPU backend in the GPU tests, so that they need no oneDNN. */
#include "kernels/ops_cpu.h"

const CpuBackend *cpu_backend_select(const char **why) {
    *why = "the GPU tests are built without the CPU backend";
    return NULL;
}

const Ops *ops_cpu(const char **why) {
    (void)cpu_backend_select(why);
    return NULL;
}
