#include "kernels/cuda/common.cuh"

#include <stdio.h>

extern "C" {
#include "kernels/cuda/libraries_cuda.h"
#ifdef ADAMEM_HAVE_CUDNN
#include "kernels/cuda/cudnn_library.h"
#endif
}

/* The version is 10000 * major + 100 * minor + patch. */
extern "C" void cuda_about_blas(char about[LIBRARY_ABOUT_BYTES]) {
#ifdef ADAMEM_CUDA_ON_HOST
    snprintf(about, LIBRARY_ABOUT_BYTES, "cuBLASLt, emulated");
#else
    const size_t version = cublasLtGetVersion();
    snprintf(about, LIBRARY_ABOUT_BYTES, "cuBLASLt %zu.%zu.%zu", version / 10000, version / 100 % 100, version % 100);
#endif
}

extern "C" void cuda_about_cudnn(char about[LIBRARY_ABOUT_BYTES]) {
#ifdef ADAMEM_HAVE_CUDNN
    CudnnLibrary *library;
    Status absent = cudnn_library_open(CUDNN_LIBRARY_NAME, &library);
    if (absent) {
        snprintf(about, LIBRARY_ABOUT_BYTES, "none: %s", status_message(absent));
        status_free(absent);
        return;
    }
    cudnn_library_version(library, about, LIBRARY_ABOUT_BYTES);
    cudnn_library_close(library);
#else
    snprintf(about, LIBRARY_ABOUT_BYTES, "none: this program was built without cuDNN");
#endif
}
