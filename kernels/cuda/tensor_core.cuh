/* The tensor cores of sm_80 and later, one instruction per function: the matrix product of a warp, the loads from shared
 * memory that feed it, asynchronous copies into shared memory, and the approximate base-two functions.
 * Source: PTX ISA, "Warp-level matrix instructions" and "Asynchronous copy".
 *
 * All functions but the asynchronous copies and the scalar ones are collective over a full warp. Lane l is written as
 * g = l / 4, t = l % 4. An 8 x 8 matrix of 16-bit elements is spread over a warp as one 32-bit register per lane: row g,
 * columns 2 t (low half) and 2 t + 1 (high half).
 *
 * With ADAMEM_CUDA_ON_HOST the same functions are plain C++ on top of the host_ functions of the emulation. */
#ifndef KERNELS_CUDA_TENSOR_CORE_CUH
#define KERNELS_CUDA_TENSOR_CORE_CUH

#include <cuda_bf16.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef ADAMEM_CUDA_ON_HOST
/* Given by the emulation.
 * host_warp_gather: collective over the warp; every lane hands in `bytes` bytes and receives those of all 32 lanes, in lane
 * order. host_copy_async queues a copy of the calling thread (from == NULL: zeros) in its open group;
 * host_copy_async_commit closes the group; host_copy_async_wait carries out all but the newest `pending` closed groups. A
 * copy may happen at any moment from its queueing to that wait: the later, the more mistakes it shows. */
void host_warp_gather(void *all, const void *mine, size_t bytes);
void host_copy_async(void *shared, const void *from, size_t bytes);
void host_copy_async_commit();
void host_copy_async_wait(int pending);

static inline float host_bf16_half(uint32_t pair, int high) {
    const uint32_t bits = high ? pair & 0xffff0000u : pair << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
#endif

/* Loads four 8 x 8 matrices of 16-bit elements: lane 8 i + r gives the address (16-byte aligned, shared memory) of row r of
 * matrix i, and register i receives matrix i. */
__device__ __forceinline__ void load_matrices(uint32_t (&matrix)[4], const void *row) {
#ifdef ADAMEM_CUDA_ON_HOST
    const void *rows[32];
    host_warp_gather(rows, &row, sizeof row);
    const int lane = threadIdx.x % 32;
    for (int i = 0; i < 4; ++i) memcpy(&matrix[i], (const char *)rows[8 * i + lane / 4] + 4 * (lane % 4), 4);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(matrix[0]), "=r"(matrix[1]), "=r"(matrix[2]), "=r"(matrix[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(row))
                 : "memory");
#endif
}

/* The same, every matrix transposed on the way: the lane receives rows 2 t and 2 t + 1 of column g. */
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&matrix)[4], const void *row) {
#ifdef ADAMEM_CUDA_ON_HOST
    const void *rows[32];
    host_warp_gather(rows, &row, sizeof row);
    const int lane = threadIdx.x % 32;
    for (int i = 0; i < 4; ++i) {
        uint16_t low, high;
        memcpy(&low, (const char *)rows[8 * i + 2 * (lane % 4)] + 2 * (lane / 4), 2);
        memcpy(&high, (const char *)rows[8 * i + 2 * (lane % 4) + 1] + 2 * (lane / 4), 2);
        matrix[i] = (uint32_t)high << 16 | low;
    }
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(matrix[0]), "=r"(matrix[1]), "=r"(matrix[2]), "=r"(matrix[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(row))
                 : "memory");
#endif
}

/* d[16, 8] += a[16, 16] b[16, 8], bf16 operands, fp32 sums.
 * d: row g, columns 2 t, 2 t + 1, then the same of row g + 8.
 * a: four 8 x 8 matrices: rows 0..7 and 8..15 of columns 0..7, then of columns 8..15.
 * b0, b1: rows 0..7 and 8..15 of b, transposed (rows 2 t and 2 t + 1 of column g). */
__device__ __forceinline__ void multiply_add(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#ifdef ADAMEM_CUDA_ON_HOST
    struct Operands {
        uint32_t a[4], b[2];
    } mine = {{a[0], a[1], a[2], a[3]}, {b0, b1}}, all[32];
    host_warp_gather(all, &mine, sizeof mine);
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    for (int i = 0; i < 4; ++i) {
        const int column = 2 * t + i % 2;
        double sum = d[i];
        for (int k = 0; k < 16; ++k)
            sum += (double)host_bf16_half(all[4 * g + k % 8 / 2].a[i / 2 + k / 8 * 2], k % 2) *
                   host_bf16_half(all[4 * column + k % 8 / 2].b[k / 8], k % 2);
        d[i] = (float)sum;
    }
#else
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};\n"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

/* Starts a copy of 16 (or 4) bytes from global to shared memory, both aligned to that; zeros are written instead where
 * `valid` is false, and `global` is not read. The data may be read after copy_async_wait and a barrier. */
template <int BYTES> __device__ __forceinline__ void copy_async(void *shared, const void *global, bool valid) {
    static_assert(BYTES == 16 || BYTES == 4, "sizes in use");
#ifdef ADAMEM_CUDA_ON_HOST
    host_copy_async(shared, valid ? global : NULL, BYTES);
#else
    const uint32_t to = (uint32_t)__cvta_generic_to_shared(shared);
    const int bytes = valid ? BYTES : 0;
    if (BYTES == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(to), "l"(global), "r"(bytes) : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;\n" ::"r"(to), "l"(global), "r"(bytes) : "memory");
#endif
}

/* Closes the group of the copies this thread has started since the last call. */
__device__ __forceinline__ void copy_async_commit() {
#ifdef ADAMEM_CUDA_ON_HOST
    host_copy_async_commit();
#else
    asm volatile("cp.async.commit_group;\n" ::: "memory");
#endif
}

/* Waits until at most PENDING of this thread's groups are unfinished, the newest ones. */
template <int PENDING> __device__ __forceinline__ void copy_async_wait() {
#ifdef ADAMEM_CUDA_ON_HOST
    host_copy_async_wait(PENDING);
#else
    asm volatile("cp.async.wait_group %0;\n" ::"n"(PENDING) : "memory");
#endif
}

/* 2^x with 2 units of the last place; results below the normal range are zero, 2^-inf = 0. */
__device__ __forceinline__ float exponential_2(float x) {
#ifdef ADAMEM_CUDA_ON_HOST
    return exp2f(x);
#else
    float result;
    asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(result) : "f"(x));
    return result;
#endif
}

/* Two floats rounded to nearest even: the first in the low half. */
__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    uint32_t bits;
    memcpy(&bits, &pair, sizeof bits);
    return bits;
}

#endif
