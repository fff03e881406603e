/* The CUDA side of kernels/libraries.h. */
#ifndef KERNELS_CUDA_LIBRARIES_CUDA_H
#define KERNELS_CUDA_LIBRARIES_CUDA_H

#include "kernels/libraries.h"

void cuda_about_blas(char about[LIBRARY_ABOUT_BYTES]);
void cuda_about_cudnn(char about[LIBRARY_ABOUT_BYTES]);

#endif
