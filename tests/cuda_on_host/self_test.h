/* Kernels that test the emulation itself, each right or with one mistake: what a wrong kernel gives must not pass for right. */
#ifndef TESTS_CUDA_ON_HOST_SELF_TEST_H
#define TESTS_CUDA_ON_HOST_SELF_TEST_H

#include "io/status.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Documented in include/cuda_runtime.h. */
void host_set_thread_order(int order);
void host_set_capability(int major);

/* out[b * 128 + i] = in[b * 128 + 127 - i] for `blocks` blocks of 128 threads, through static or dynamic shared memory. */
Status self_test_reverse(float *out, const float *in, int blocks, bool barrier);
Status self_test_reverse_dynamic(float *out, const float *in, int blocks, bool barrier);
/* The same inside each warp: out[32 w + i] = in[32 w + 31 - i]. */
Status self_test_reverse_warp(float *out, const float *in, int blocks, bool barrier);
/* The same by asynchronous copies, with or without waiting for them. */
Status self_test_reverse_async(float *out, const float *in, int blocks, bool wait);
/* out[block] = what block 0 left in shared memory: nothing may survive. */
Status self_test_leftover(float *out, int blocks);
/* Sum by float atomics: its bits depend on the order. Integer atomics do not. */
Status self_test_atomics(float *sum, int *count, int *largest, const float *in, int blocks);
/* Warp operations: sum[w] of 32 values by each kind of shuffle, ballot of the odd lanes, lane 5's value. 32 threads. */
Status self_test_warp(float *sums, uint32_t *ballot, float *fifth, const float *in);
/* Two warps at two different barriers; a lane that waits for one that never comes; too much shared memory; a write behind it. */
Status self_test_split_barrier(void);
Status self_test_missing_lane(void);
Status self_test_shared_memory(int bytes, bool allow);
Status self_test_shared_overrun(void);
/* Threads that return before the others' barrier: allowed. out[0] = number of threads that stayed. */
Status self_test_early_return(int *out);
/* d[16,8] = a[16,16] b[16,8] + d on the tensor cores, operands bf16 (as uint16), row-major. */
Status self_test_tensor_core(float *d, const uint16_t *a, const uint16_t *b);
/* A 64 x 64 product whose A lies `offset` bytes off, asked for as if it were aligned; its A is read as m x k or k x m. */
Status self_test_product(float *c, const float *a, const float *b, bool misaligned, bool other_shape);

#ifdef __cplusplus
}
#endif

#endif
