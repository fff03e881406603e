/* Which of CUDA's libraries this program would use, for reports: "cuBLASLt 13.1.0", "cuDNN 9.19.0", or why none. */
#ifndef KERNELS_LIBRARIES_H
#define KERNELS_LIBRARIES_H

enum { LIBRARY_ABOUT_BYTES = 256 };

void library_about_blas(char about[LIBRARY_ABOUT_BYTES]);
void library_about_cudnn(char about[LIBRARY_ABOUT_BYTES]);

#endif
