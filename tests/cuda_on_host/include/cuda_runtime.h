/* Stands in for the CUDA runtime's header when the kernels are compiled as C++ for the host (ADAMEM_CUDA_ON_HOST).
 *
 * A launch runs its blocks one after another; the threads of a block are fibres that change places only at barriers and warp
 * operations, in a chosen order. Shared variables are thread_local: there is one thread, and its thread-local storage in
 * this library holds nothing else, so all of it is filled with NaN before every block. Dynamic shared memory is the array
 * `shared`, the one name that kernels use for it. What CUDA leaves undefined (a barrier that not all threads reach, or
 * reach at different places; a launch beyond the limits of the device) is an error of the launch that says where.
 * Rules: CUDA C++ Programming Guide, "Synchronization Functions", "Warp Shuffle Functions", "Compute Capabilities". */
#ifndef TESTS_CUDA_ON_HOST_CUDA_RUNTIME_H
#define TESTS_CUDA_ON_HOST_CUDA_RUNTIME_H

#include <limits.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <functional>
#include <tuple>

#define __global__
#define __device__
#define __host__
#define __shared__      thread_local
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
#define CUDART_VERSION   13000

/* ---- launches ---- */

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
extern __attribute__((visibility("hidden"))) dim3 threadIdx, blockIdx, blockDim, gridDim;

enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorInvalidDeviceFunction = 98,
    cudaErrorNoDevice = 100,
    cudaErrorInvalidDevice = 101,
    cudaErrorNoKernelImageForDevice = 209,
    cudaErrorECCUncorrectable = 214,
    cudaErrorNotReady = 600,
    cudaErrorLaunchFailure = 719,
};
typedef struct CUstream_st *cudaStream_t;
typedef struct CUevent_st *cudaEvent_t;

/* Checks the launch and issues it to the stream (streams.h), where body() runs once per thread; cudaGetErrorString says what
 * went wrong. */
cudaError_t host_launch(const void *kernel, dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                        std::function<void()> body);
cudaError_t host_launch_error(); /* once, of the last launch that failed while it ran and that nobody has heard of yet */

/* kernel<<<grid, block, shared_bytes, stream>>>(arguments...). */
template <typename... Parameters, typename... Arguments>
void host_launch_kernel(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                        Arguments... arguments) {
    std::tuple<Parameters...> values(static_cast<Parameters>(arguments)...);
    host_launch(reinterpret_cast<const void *>(kernel), grid, block, shared_bytes, stream,
                [kernel, values] { std::apply(kernel, values); });
}

/* How threads and blocks take turns in the launches to come: 0 forward, 1 reverse, above that random, the order being the
 * seed. In order 1, and in half of the blocks of a random one, a warp runs as far as it can before the next one starts.
 * Copies of cp.async happen as late as allowed in order 0, at once in order 1, else at random. */
extern "C" void host_set_thread_order(int order);

/* The emulated device: 8 for an A100, 9 for an H100, which has more shared memory. */
extern "C" void host_set_capability(int major);
size_t host_memory_bytes(); /* of the device, free or not */
extern int host_capability; /* 8 at first */
static inline size_t host_shared_limit() { return (size_t)(host_capability == 8 ? 163 : 227) << 10; } /* of a block */

/* ---- barriers and warp operations; file and line tell whether threads meet at the same place ---- */

#define HOST_PLACE const char *file = __builtin_FILE(), int line = __builtin_LINE()

/* Waits for all threads of the block that have not returned; the number of them whose predicate holds. */
int host_block_barrier(bool predicate, const char *file, int line);
/* Waits for the lanes in mask that have not returned; the last one carries out the operation: operands[lane] is what that
 * lane handed in, for the lanes in `lanes`. */
typedef void (*HostWarpOperation)(void *const operands[32], uint32_t lanes);
void host_warp_operation(uint32_t mask, void *operand, HostWarpOperation operation, const char *file, int line);
int host_lane();

/* What tensor_core.cuh is made of on the host; documented there. */
void host_warp_gather(void *all, const void *mine, size_t bytes);
void host_copy_async(void *to, const void *from, size_t bytes);
void host_copy_async_commit();
void host_copy_async_wait(int pending);

inline void __syncthreads(HOST_PLACE) { (void)host_block_barrier(false, file, line); }
inline int __syncthreads_or(int predicate, HOST_PLACE) { return host_block_barrier(predicate != 0, file, line) > 0; }
inline int __syncthreads_count(int predicate, HOST_PLACE) { return host_block_barrier(predicate != 0, file, line); }

void host_warp_nothing(void *const operands[32], uint32_t lanes);
inline void __syncwarp(unsigned mask = 0xffffffffu, HOST_PLACE) {
    host_warp_operation(mask, nullptr, host_warp_nothing, file, line);
}

struct HostShuffle {
    uint64_t value, result;
    int source;
};
void host_warp_shuffle(void *const operands[32], uint32_t lanes);
template <typename T> T host_shuffle(unsigned mask, T x, int source, const char *file, int line) {
    static_assert(sizeof(T) <= 8, "a shuffle moves at most 8 bytes");
    HostShuffle shuffle = {0, 0, source};
    memcpy(&shuffle.value, &x, sizeof x);
    host_warp_operation(mask, &shuffle, host_warp_shuffle, file, line);
    memcpy(&x, &shuffle.result, sizeof x);
    return x;
}
template <typename T> T __shfl_sync(unsigned mask, T x, int lane, HOST_PLACE) {
    return host_shuffle(mask, x, lane % 32, file, line);
}
template <typename T> T __shfl_xor_sync(unsigned mask, T x, int bits, HOST_PLACE) {
    return host_shuffle(mask, x, host_lane() ^ bits, file, line);
}
template <typename T> T __shfl_down_sync(unsigned mask, T x, unsigned delta, HOST_PLACE) {
    const int source = host_lane() + (int)delta;
    return host_shuffle(mask, x, source < 32 ? source : host_lane(), file, line);
}
template <typename T> T __shfl_up_sync(unsigned mask, T x, unsigned delta, HOST_PLACE) {
    const int source = host_lane() - (int)delta;
    return host_shuffle(mask, x, source >= 0 ? source : host_lane(), file, line);
}

struct HostBallot {
    bool predicate;
    uint32_t result;
};
void host_warp_ballot(void *const operands[32], uint32_t lanes);
inline unsigned __ballot_sync(unsigned mask, int predicate, HOST_PLACE) {
    HostBallot ballot = {predicate != 0, 0};
    host_warp_operation(mask, &ballot, host_warp_ballot, file, line);
    return ballot.result;
}
inline int __any_sync(unsigned mask, int predicate, HOST_PLACE) { return __ballot_sync(mask, predicate, file, line) != 0; }

/* ---- atomics: fibres never change places inside one ---- */

template <typename T> T atomicAdd(T *address, T value) {
    T old = *address;
    *address = old + value;
    return old;
}
template <typename T> T atomicMax(T *address, T value) {
    T old = *address;
    if (value > old) *address = value;
    return old;
}
template <typename T> T atomicCAS(T *address, T expected, T value) {
    T old = *address;
    if (old == expected) *address = value;
    return old;
}

/* ---- arithmetic ---- */

inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline long long __double2ll_rn(double x) { return llrint(x); }

/* ---- host functions of the runtime: device memory is host memory ---- */

enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2, cudaMemcpyDeviceToDevice = 3 };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
enum cudaDeviceAttr {
    cudaDevAttrComputeCapabilityMajor = 75,
    cudaDevAttrComputeCapabilityMinor = 76,
    cudaDevAttrMaxSharedMemoryPerMultiprocessor = 81,
};
enum { cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2, cudaHostAllocDefault = 0 };

struct cudaDeviceProp {
    char name[256];
    int major, minor;
    int multiProcessorCount;
    size_t totalGlobalMem;
};
struct cudaFuncAttributes {
    int binaryVersion;
};

cudaError_t cudaGetLastError();
const char *cudaGetErrorString(cudaError_t error);
const char *cudaGetErrorName(cudaError_t error);
cudaError_t cudaDriverGetVersion(int *version);
cudaError_t cudaGetDeviceCount(int *count);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int device);
cudaError_t cudaDeviceGetPCIBusId(char *text, int bytes, int device);
cudaError_t cudaMalloc(void **memory, size_t bytes); /* filled with NaN */
cudaError_t cudaFree(void *memory);
cudaError_t cudaMemGetInfo(size_t *available, size_t *total);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags);
cudaError_t cudaStreamQuery(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags = 0);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaHostAlloc(void **memory, size_t bytes, unsigned flags); /* page-locked; filled with NaN */
cudaError_t cudaFreeHost(void *memory);

cudaError_t host_allow_shared_memory(const void *kernel, int bytes);
template <typename... Parameters> cudaError_t cudaFuncSetAttribute(void (*kernel)(Parameters...), cudaFuncAttribute, int value) {
    return host_allow_shared_memory(reinterpret_cast<const void *>(kernel), value);
}
template <typename... Parameters> cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *attributes, void (*)(Parameters...)) {
    attributes->binaryVersion = 10 * host_capability;
    return cudaSuccess;
}

#endif
