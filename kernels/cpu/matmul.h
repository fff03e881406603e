/* Matrix products with a row stride of the first operand, for ops that keep it inside a wider buffer. */
#ifndef KERNELS_CPU_MATMUL_H
#define KERNELS_CPU_MATMUL_H

#include "kernels/cpu/cpu_ops.h"

#define cpu_matmul_strided CPU_NAME(cpu_matmul_strided)
/* As Ops.matmul; row i of a begins at element i * lda. */
Status cpu_matmul_strided(Device *device, Tensor c, Tensor a, int64_t lda, bool transpose_a, Tensor b, bool transpose_b,
                          Tensor bias, float alpha, float beta);

#endif
