/* cuDNN, loaded at run time: the program starts, and runs on its own kernels, where it is absent.
 *
 * Only the graph API is used (cuDNN "Graph API" and cudnn_graph.h). Its functions take descriptors whose attributes are set
 * one by one; what the attributes of attention mean stands in cudnn_attention.c. */
#ifndef KERNELS_CUDA_CUDNN_LIBRARY_H
#define KERNELS_CUDA_CUDNN_LIBRARY_H

#include "io/status.h"

#include <cudnn_graph.h>

#include <stddef.h>

/* The functions that are used, found under the names that cudnn_graph.h declares. */
typedef struct CudnnLibrary {
    void *handle;
    int64_t version; /* 10000 * major + 100 * minor + patch */
    __typeof__(&cudnnGetVersion) get_version;
    __typeof__(&cudnnGetErrorString) error_string;
    __typeof__(&cudnnGetLastErrorString) last_error;
    __typeof__(&cudnnCreate) create;
    __typeof__(&cudnnDestroy) destroy;
    __typeof__(&cudnnSetStream) set_stream;
    __typeof__(&cudnnBackendCreateDescriptor) create_descriptor;
    __typeof__(&cudnnBackendDestroyDescriptor) destroy_descriptor;
    __typeof__(&cudnnBackendFinalize) finalize;
    __typeof__(&cudnnBackendSetAttribute) set_attribute;
    __typeof__(&cudnnBackendGetAttribute) get_attribute;
    __typeof__(&cudnnBackendExecute) execute;
} CudnnLibrary;

/* The name that the dynamic linker knows: the major version is the ABI. */
#define CUDNN_LIBRARY_NAME "libcudnn.so.9"

/* Loads the library; an error says that it is absent, or older than what attention needs. Freed with cudnn_library_close. */
Status cudnn_library_open(const char *name, CudnnLibrary **out);
void cudnn_library_close(CudnnLibrary *library);

/* "cuDNN 9.19.0". */
void cudnn_library_version(const CudnnLibrary *library, char *text, size_t bytes);

/* Turns a result into a Status that names the call and cuDNN's own reason. */
Status cudnn_status(const CudnnLibrary *library, cudnnStatus_t result, const char *what, const char *file, int line);
#define TRY_CUDNN(library, call) TRY(cudnn_status((library), (library)->call, #call, __FILE__, __LINE__))

#endif
