#include "kernels/matmul_plans.h"

const MatmulPlanning *matmul_planning(const Device *device) {
#ifdef ADAMEM_HAVE_CUDA
    if (device->kind == BACKEND_CUDA) return matmul_planning_cuda();
#endif
    (void)device;
    return NULL;
}
