#include "kernels/cpu/context.h"

#include "kernels/cpu/gemm.h"

#include <stdlib.h>
#include <sys/mman.h>

Status cpu_context_open(int threads, void **out) {
    CpuContext *context = calloc(1, sizeof *context);
    TRY_ALLOC(context);
    Status status;
    context->threads = threads;
    size_t bytes = (size_t)threads * WORKSPACE_BYTES;
    context->workspaces = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (context->workspaces == MAP_FAILED) {
        status = FAILURE("out of memory: cannot map %zu bytes of workspace", bytes);
        goto failed;
    }
    TRY_GOTO(matmul_cache_open(threads, &context->matmul), unmap);
    *out = context;
    return STATUS_OK;
unmap:
    munmap(context->workspaces, bytes);
failed:
    free(context);
    return status;
}

void cpu_context_close(void *pointer) {
    CpuContext *context = pointer;
    if (!context) return;
    matmul_cache_close(context->matmul);
    munmap(context->workspaces, (size_t)context->threads * WORKSPACE_BYTES);
    free(context);
}
