#include "kernels/libraries.h"

#include <stdio.h>

#ifdef ADAMEM_HAVE_CUDA
#include "kernels/cuda/libraries_cuda.h"
#endif

void library_about_blas(char about[LIBRARY_ABOUT_BYTES]) {
#ifdef ADAMEM_HAVE_CUDA
    cuda_about_blas(about);
#else
    snprintf(about, LIBRARY_ABOUT_BYTES, "none: this program was built without CUDA");
#endif
}

void library_about_cudnn(char about[LIBRARY_ABOUT_BYTES]) {
#ifdef ADAMEM_HAVE_CUDA
    cuda_about_cudnn(about);
#else
    snprintf(about, LIBRARY_ABOUT_BYTES, "none: this program was built without CUDA");
#endif
}
