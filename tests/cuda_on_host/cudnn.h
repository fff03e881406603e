/* cuDNN on the emulated GPU: absent until a test asks for it. */
#ifndef TESTS_CUDA_ON_HOST_CUDNN_H
#define TESTS_CUDA_ON_HOST_CUDNN_H

#include <stdbool.h>

/* Whether cuDNN is there for devices that are given their attention from now on. */
void host_set_cudnn(bool present);

#endif
