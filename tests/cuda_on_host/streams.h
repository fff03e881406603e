/* What is issued to the emulated device: streams, events, and faults.
 *
 * A stream is a row of operations that are carried out in order. By default each is carried out when it is issued. The
 * environment variable CUDA_ON_HOST_STREAMS makes chosen streams wait until something needs their result (the host, or an
 * event that another stream waits for), so that a wait that was forgotten shows as wrong numbers:
 *   work-late    the first stream of a process waits, the others do not
 *   copies-late  the others wait
 *   all-late     every stream waits
 * CUDA_ON_HOST_FAULT="RANK N" loses the device of that rank at the N-th call: it and all later ones fail. */
#ifndef TESTS_CUDA_ON_HOST_STREAMS_H
#define TESTS_CUDA_ON_HOST_STREAMS_H

#include <cuda_runtime.h>

#include <functional>
#include <mutex>

/* Around everything that the runtime does: threads of the program may call it at once. */
std::recursive_mutex &host_runtime_mutex();

/* Counts a call; cudaErrorECCUncorrectable from the chosen one on. */
cudaError_t host_device_call();

/* Carries out the operation now or in its turn. */
void host_stream_issue(cudaStream_t stream, std::function<void()> operation);
/* Carries out everything that any stream holds. */
void host_streams_finish();

/* Device memory may be touched while one of these lives: by kernels and copies, not by the program (memory.cpp). */
struct HostMemoryAccess {
    HostMemoryAccess();
    ~HostMemoryAccess();
};
bool host_memory_is_pinned(const void *memory);

#endif
