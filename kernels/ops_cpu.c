#include "kernels/ops_cpu.h"

/* kernels/cpu/ is compiled once per level; each object exports one of these (kernels/cpu/backend.c). */
extern const CpuBackend cpu_backend_v3, cpu_backend_v4, cpu_backend_generic;

const CpuBackend *cpu_backend_supported(int index) {
#ifdef ADAMEM_CPU_V4
    if (__builtin_cpu_supports("x86-64-v4") && index-- == 0) return &cpu_backend_v4;
#endif
#ifdef ADAMEM_CPU_V3
    if (__builtin_cpu_supports("x86-64-v3") && index-- == 0) return &cpu_backend_v3;
#endif
#ifdef ADAMEM_CPU_GENERIC
    if (index == 0) return &cpu_backend_generic;
#endif
    (void)index;
    return NULL;
}

const CpuBackend *cpu_backend_select(const char **why) {
    *why = "this CPU lacks AVX2, FMA or BMI2 (x86-64-v3, Intel Haswell or AMD Excavator of 2013 to 2015)";
    return cpu_backend_supported(0);
}

const Ops *ops_cpu(const char **why) {
    const CpuBackend *backend = cpu_backend_select(why);
    return backend ? backend->ops : NULL;
}
