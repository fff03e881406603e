/* A library with the name of CUDA's driver for tests without GPUs: it has no device and no context; it takes machine code, and
 * refuses everything else.
 *
 * With it cuDNN makes whole execution plans for a GPU that is only described. Without any driver it refuses
 * (CUDNN_STATUS_NOT_SUPPORTED_RUNTIME_PREREQUISITE_MISSING, "this->libcuda == nullptr"); with CUDA's own stub of the driver it
 * fails when it has compiled a kernel ("cuLibraryLoadData returned error (34)"). The functions are all those that cuDNN 9.19
 * and 9.26 look up. They stand apart from cuda.h, which gives some of them other names. */
enum { NO_DEVICE = 100, NOT_SUPPORTED = 801 }; /* CUDA_ERROR_... */

#define FUNCTION(name, result)                                                                                                   \
    int name(void);                                                                                                              \
    int name(void) { return result; }

static int object; /* what every handle points to */

#define LOADING_FUNCTION(name)                                                                                                   \
    int name(void **handle);                                                                                                     \
    int name(void **handle) {                                                                                                    \
        *handle = &object;                                                                                                       \
        return 0;                                                                                                                \
    }

LOADING_FUNCTION(cuLibraryLoadData)
LOADING_FUNCTION(cuLibraryGetKernel)
LOADING_FUNCTION(cuKernelGetFunction)
FUNCTION(cuLibraryUnload, 0)

FUNCTION(cuInit, NO_DEVICE)
FUNCTION(cuDeviceGet, NO_DEVICE)
FUNCTION(cuDeviceGetCount, NO_DEVICE)
FUNCTION(cuDriverGetVersion, NOT_SUPPORTED)
FUNCTION(cuGetErrorName, NOT_SUPPORTED)
FUNCTION(cuGetErrorString, NOT_SUPPORTED)
FUNCTION(cuCtxGetCurrent, NOT_SUPPORTED)
FUNCTION(cuCtxGetLimit, NOT_SUPPORTED)
FUNCTION(cuCtxPopCurrent, NOT_SUPPORTED)
FUNCTION(cuCtxPushCurrent, NOT_SUPPORTED)
FUNCTION(cuStreamGetCtx, NOT_SUPPORTED)
FUNCTION(cuLibraryLoadFromFile, NOT_SUPPORTED)
FUNCTION(cuKernelGetAttribute, NOT_SUPPORTED)
FUNCTION(cuKernelSetAttribute, NOT_SUPPORTED)
FUNCTION(cuFuncSetAttribute, NOT_SUPPORTED)
FUNCTION(cuLaunchKernel, NOT_SUPPORTED)
FUNCTION(cuLaunchKernelEx, NOT_SUPPORTED)
FUNCTION(cuLaunchCooperativeKernel, NOT_SUPPORTED)
FUNCTION(cuOccupancyMaxPotentialClusterSize, NOT_SUPPORTED)
FUNCTION(cuLinkCreate, NOT_SUPPORTED)
FUNCTION(cuLinkAddData, NOT_SUPPORTED)
FUNCTION(cuLinkComplete, NOT_SUPPORTED)
FUNCTION(cuLinkDestroy, NOT_SUPPORTED)
