#include "trainer/version.h"

const char *version_text(void) { return ADAMEM_VERSION; }

const char *version_build(void) {
#ifdef ADAMEM_HAVE_CUDA
    return "compiler " __VERSION__ ", backends cpu and cuda";
#else
    return "compiler " __VERSION__ ", backend cpu";
#endif
}
