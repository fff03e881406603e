/* The GPU as a device: opening it with messages that say what is wrong with a machine, its memory, its two streams. */
#include "kernels/cuda/common.cuh"

extern "C" {
#include "kernels/device_memory.h"
}

#include <stdio.h>
#include <stdlib.h>

/* cuBLASLt asks for 32 MiB on Hopper; twice that leaves split-K algorithms for long sums possible. */
static const size_t blas_workspace_bytes = (size_t)64 << 20;
static const double mebibyte = 1048576.0;

/* Loading it tells whether the program holds machine code for this GPU. */
__global__ void probe_kernel() {}

/* Why no GPU can be used, or NULL. */
static const char *why_no_gpu(int *count) {
    int driver = 0;
    *count = 0;
    if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) return "no NVIDIA driver is installed on this machine";
    if (driver / 1000 < CUDART_VERSION / 1000) return "the NVIDIA driver is too old for CUDA 13: version 580 or later is needed";
    cudaError_t error = cudaGetDeviceCount(count);
    (void)cudaGetLastError();
    if (error == cudaErrorNoDevice || (error == cudaSuccess && *count == 0))
        return "no GPU is visible to this process (see nvidia-smi and CUDA_VISIBLE_DEVICES)";
    if (error != cudaSuccess) return cudaGetErrorString(error);
    return NULL;
}

extern "C" bool device_memory_cuda_available(const char **why) {
    int count, major = 0;
    const char *reason = why_no_gpu(&count);
    if (!reason && cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0) != cudaSuccess)
        reason = "the GPU does not answer";
    if (!reason && major < 8) reason = "the GPU is too old: compute capability 8.0 (A100) or later is needed";
    if (why) *why = reason;
    return !reason;
}

static Status check_architecture(const cudaDeviceProp *properties) {
    if (properties->major < 8)
        FAIL("%s has compute capability %d.%d; the CUDA backend needs 8.0 (A100) or later", properties->name, properties->major,
             properties->minor);
    cudaFuncAttributes attributes;
    cudaError_t error = cudaFuncGetAttributes(&attributes, probe_kernel);
    if (error == cudaErrorNoKernelImageForDevice || error == cudaErrorInvalidDeviceFunction) {
        (void)cudaGetLastError();
        FAIL("%s has compute capability %d.%d, but this program holds machine code for %s only: build it with "
             "-DADAMEM_CUDA_ARCHITECTURES=%d%d",
             properties->name, properties->major, properties->minor, ADAMEM_CUDA_ARCHITECTURES, properties->major,
             properties->minor);
    }
    return cuda_status(error, "loading the program's kernels", __FILE__, __LINE__);
}

static Status out_of_memory(size_t bytes) {
    size_t available = 0, total = 0;
    (void)cudaGetLastError();
    (void)cudaMemGetInfo(&available, &total);
    return FAILURE("out of GPU memory: %.1f MiB asked for, %.1f of %.1f MiB free", (double)bytes / mebibyte,
                   (double)available / mebibyte, (double)total / mebibyte);
}

static Status allocate_bytes(size_t bytes, void **out) {
    cudaError_t error = cudaMalloc(out, bytes);
    if (error == cudaErrorMemoryAllocation) return out_of_memory(bytes);
    return cuda_status(error, "cudaMalloc", __FILE__, __LINE__);
}

static void destroy_context(CudaContext *context) {
    if (context->uploads) (void)cudaStreamSynchronize(context->uploads);
    if (context->stream) (void)cudaStreamSynchronize(context->stream);
    attention_cudnn_close(context->cudnn);
    if (context->blas) (void)cublasLtDestroy(context->blas);
    if (context->workspace) (void)cudaFree(context->workspace);
    if (context->stream) (void)cudaStreamDestroy(context->stream);
    if (context->uploads) (void)cudaStreamDestroy(context->uploads);
    matmul_plans_destroy(context->plans);
    free(context);
}

/* Fills a zeroed context; what it obtained before an error is freed by the caller. */
static Status fill_context(CudaContext *context, const cudaDeviceProp *properties) {
    TRY(check_architecture(properties));
    TRY_CUDA(cudaStreamCreateWithFlags(&context->stream, cudaStreamNonBlocking));
    TRY_CUDA(cudaStreamCreateWithFlags(&context->uploads, cudaStreamNonBlocking));
    cublasStatus_t result = cublasLtCreate(&context->blas);
    if (result != CUBLAS_STATUS_SUCCESS) FAIL("cublasLtCreate: %s", cublasLtGetStatusString(result));
    TRY(allocate_bytes(blas_workspace_bytes, &context->workspace));
    context->workspace_bytes = blas_workspace_bytes;
    context->attention = ATTENTION_TENSOR_CORES;
    return matmul_plans_create(&context->plans);
}

static Status cuda_open(Device *device, int local_rank) {
    int count;
    const char *reason = why_no_gpu(&count);
    if (reason) FAIL("the CUDA backend cannot run: %s", reason);
    if (local_rank < 0) FAIL("local rank %d is negative", local_rank);
    const int ordinal = local_rank % count;
    cudaDeviceProp properties;
    TRY_CUDA(cudaSetDevice(ordinal));
    TRY_CUDA(cudaGetDeviceProperties(&properties, ordinal));
    CudaContext *context;
    TRY_ALLOC(context = (CudaContext *)calloc(1, sizeof *context));
    context->ordinal = ordinal;
    Status status = fill_context(context, &properties);
    if (status) {
        destroy_context(context);
        return status_trace(status, __FILE__, __LINE__);
    }
    device->ops = ops_cuda();
    device->context = context;
    device->threads = 1;
    device->memory_bytes = (int64_t)properties.totalGlobalMem;
    snprintf(device->name, sizeof device->name, "%.100s", properties.name);
    return STATUS_OK;
}

static void cuda_close(Device *device) {
    destroy_context(cuda_context(device));
    device->context = NULL;
}

/* Another thread than the one that opened the device (a loader) may call the functions below, so each names the GPU. */
static Status select_device(Device *device) {
    TRY_CUDA(cudaSetDevice(cuda_context(device)->ordinal));
    return STATUS_OK;
}

static Status cuda_allocate(Device *device, size_t bytes, void **out) {
    TRY(select_device(device));
    return allocate_bytes(bytes, out);
}

/* cudaFree waits for the GPU, so no kernel still uses the memory. */
static void cuda_release(Device *device, void *data) {
    (void)cudaSetDevice(cuda_context(device)->ordinal);
    (void)cudaFree(data);
}

/* Pageable host memory is staged before the call returns: the caller may reuse it at once. */
static Status cuda_upload(Device *device, void *destination, const void *host, size_t bytes) {
    TRY(select_device(device));
    TRY_CUDA(cudaMemcpyAsync(destination, host, bytes, cudaMemcpyHostToDevice, cuda_context(device)->stream));
    return STATUS_OK;
}

static Status cuda_download(Device *device, void *host, const void *source, size_t bytes) {
    TRY(select_device(device));
    TRY_CUDA(cudaMemcpyAsync(host, source, bytes, cudaMemcpyDeviceToHost, cuda_context(device)->stream));
    TRY_CUDA(cudaStreamSynchronize(cuda_context(device)->stream));
    return STATUS_OK;
}

static Status cuda_copy(Device *device, void *destination, const void *source, size_t bytes) {
    TRY(select_device(device));
    TRY_CUDA(cudaMemcpyAsync(destination, source, bytes, cudaMemcpyDeviceToDevice, cuda_context(device)->stream));
    return STATUS_OK;
}

static Status cuda_zero(Device *device, void *data, size_t bytes) {
    TRY(select_device(device));
    TRY_CUDA(cudaMemsetAsync(data, 0, bytes, cuda_context(device)->stream));
    return STATUS_OK;
}

static Status cuda_synchronize(Device *device) {
    TRY(select_device(device));
    TRY_CUDA(cudaStreamSynchronize(cuda_context(device)->stream));
    return STATUS_OK;
}

static Status cuda_stream(Device *device, void **stream) {
    TRY(select_device(device));
    *stream = cuda_context(device)->stream;
    return STATUS_OK;
}

static Status cuda_poll(Device *device, bool *idle) {
    TRY(select_device(device));
    cudaError_t error = cudaStreamQuery(cuda_context(device)->stream);
    *idle = error == cudaSuccess;
    if (error != cudaErrorNotReady) return cuda_status(error, "cudaStreamQuery", __FILE__, __LINE__);
    (void)cudaGetLastError(); /* else the next launch would be taken for the one that failed */
    return STATUS_OK;
}

static Status cuda_identity(Device *device, char text[DEVICE_IDENTITY_BYTES]) {
    TRY_CUDA(cudaDeviceGetPCIBusId(text, DEVICE_IDENTITY_BYTES, cuda_context(device)->ordinal));
    return STATUS_OK;
}

static Status cuda_allocate_pinned(Device *device, size_t bytes, void **out) {
    TRY(select_device(device));
    cudaError_t error = cudaHostAlloc(out, bytes, cudaHostAllocDefault);
    if (error == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError();
        FAIL("out of memory: the system does not lock %.1f MiB of host memory for the GPU", (double)bytes / mebibyte);
    }
    return cuda_status(error, "cudaHostAlloc", __FILE__, __LINE__);
}

static void cuda_release_pinned(Device *device, void *data) {
    (void)cudaSetDevice(cuda_context(device)->ordinal);
    (void)cudaFreeHost(data);
}

static cudaStream_t stream_of(Device *device, DeviceQueue queue) {
    return queue == DEVICE_WORK ? cuda_context(device)->stream : cuda_context(device)->uploads;
}

static Status cuda_upload_beside(Device *device, void *destination, const void *pinned, size_t bytes) {
    TRY(select_device(device));
    TRY_CUDA(cudaMemcpyAsync(destination, pinned, bytes, cudaMemcpyHostToDevice, cuda_context(device)->uploads));
    return STATUS_OK;
}

static Status cuda_download_later(Device *device, void *pinned, const void *source, size_t bytes) {
    TRY(select_device(device));
    TRY_CUDA(cudaMemcpyAsync(pinned, source, bytes, cudaMemcpyDeviceToHost, cuda_context(device)->stream));
    return STATUS_OK;
}

/* An event that was never recorded counts as come, for cudaStreamWaitEvent and cudaEventSynchronize alike. */
static Status cuda_event_create(Device *device, DeviceEvent **out) {
    cudaEvent_t event;
    TRY(select_device(device));
    TRY_CUDA(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    *out = (DeviceEvent *)event;
    return STATUS_OK;
}

static void cuda_event_destroy(Device *device, DeviceEvent *event) {
    (void)cudaSetDevice(cuda_context(device)->ordinal);
    (void)cudaEventDestroy((cudaEvent_t)event);
}

static Status cuda_event_mark(Device *device, DeviceQueue queue, DeviceEvent *event) {
    TRY(select_device(device));
    TRY_CUDA(cudaEventRecord((cudaEvent_t)event, stream_of(device, queue)));
    return STATUS_OK;
}

static Status cuda_queue_wait(Device *device, DeviceQueue queue, DeviceEvent *event) {
    TRY(select_device(device));
    TRY_CUDA(cudaStreamWaitEvent(stream_of(device, queue), (cudaEvent_t)event, 0));
    return STATUS_OK;
}

static Status cuda_event_wait(Device *device, DeviceEvent *event) {
    TRY(select_device(device));
    TRY_CUDA(cudaEventSynchronize((cudaEvent_t)event));
    return STATUS_OK;
}

static Status cuda_free_memory(Device *device, int64_t *bytes) {
    size_t free_bytes = 0, total = 0;
    TRY(select_device(device));
    TRY_CUDA(cudaMemGetInfo(&free_bytes, &total));
    *bytes = (int64_t)free_bytes;
    return STATUS_OK;
}

extern "C" const DeviceMemory *device_memory_cuda(void) {
    static const DeviceMemory memory = {cuda_open,
                                        cuda_close,
                                        cuda_allocate,
                                        cuda_release,
                                        cuda_upload,
                                        cuda_download,
                                        cuda_copy,
                                        cuda_zero,
                                        cuda_synchronize,
                                        cuda_free_memory,
                                        false,
                                        cuda_allocate_pinned,
                                        cuda_release_pinned,
                                        cuda_upload_beside,
                                        cuda_download_later,
                                        cuda_event_create,
                                        cuda_event_destroy,
                                        cuda_event_mark,
                                        cuda_queue_wait,
                                        cuda_event_wait,
                                        cuda_set_attention,
                                        cuda_stream,
                                        cuda_poll,
                                        cuda_identity};
    return &memory;
}
