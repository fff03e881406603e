#include "kernels/cuda/cudnn_library.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Ragged tensors with grouped-query attention, -infinity as the masked value, and a backward pass without known faults. */
enum { OLDEST_CUDNN = 91300 };

static Status find_function(void *handle, const char *name, void *pointer) {
    void *address = dlsym(handle, name);
    if (!address) FAIL("cuDNN is too old: it lacks %s", name);
    memcpy(pointer, &address, sizeof address); /* ISO C has no cast from an object to a function pointer; POSIX equates them */
    return STATUS_OK;
}

static Status find_functions(CudnnLibrary *library) {
    const struct {
        const char *name;
        void *pointer;
    } functions[] = {
        {"cudnnGetVersion", &library->get_version},
        {"cudnnGetErrorString", &library->error_string},
        {"cudnnGetLastErrorString", &library->last_error},
        {"cudnnCreate", &library->create},
        {"cudnnDestroy", &library->destroy},
        {"cudnnSetStream", &library->set_stream},
        {"cudnnBackendCreateDescriptor", &library->create_descriptor},
        {"cudnnBackendDestroyDescriptor", &library->destroy_descriptor},
        {"cudnnBackendFinalize", &library->finalize},
        {"cudnnBackendSetAttribute", &library->set_attribute},
        {"cudnnBackendGetAttribute", &library->get_attribute},
        {"cudnnBackendExecute", &library->execute},
    };
    for (size_t i = 0; i < sizeof functions / sizeof *functions; ++i)
        TRY(find_function(library->handle, functions[i].name, functions[i].pointer));
    library->version = (int64_t)library->get_version();
    if (library->version < OLDEST_CUDNN) {
        char text[40];
        cudnn_library_version(library, text, sizeof text);
        FAIL("%s is too old: at least %d.%d is needed", text, OLDEST_CUDNN / 10000, OLDEST_CUDNN / 100 % 100);
    }
    return STATUS_OK;
}

Status cudnn_library_open(const char *name, CudnnLibrary **out) {
    CudnnLibrary *library;
    *out = NULL;
    TRY_ALLOC(library = calloc(1, sizeof *library));
    library->handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    Status status = library->handle ? find_functions(library) : FAILURE("cuDNN is absent: %s", dlerror());
    if (status)
        cudnn_library_close(library);
    else
        *out = library;
    return status;
}

/* The library itself stays loaded: what it has registered with the CUDA runtime may outlive the last handle. */
void cudnn_library_close(CudnnLibrary *library) { free(library); }

void cudnn_library_version(const CudnnLibrary *library, char *text, size_t bytes) {
    const int version = (int)library->version;
    snprintf(text, bytes, "cuDNN %d.%d.%d", version / 10000, version / 100 % 100, version % 100);
}

Status cudnn_status(const CudnnLibrary *library, cudnnStatus_t result, const char *what, const char *file, int line) {
    if (result == CUDNN_STATUS_SUCCESS) return STATUS_OK;
    char detail[512] = "";
    library->last_error(detail, sizeof detail);
    detail[strcspn(detail, "\n")] = 0;
    return status_new(STATUS_FAILED, file, line, "cuDNN: %s: %s%s%s", what, library->error_string(result), detail[0] ? ": " : "",
                      detail);
}
