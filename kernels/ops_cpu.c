#include "kernels/ops_cpu.h"

/* kernels/cpu/ is compiled once per level; each object exports one of these (kernels/cpu/backend.c). */
extern const CpuBackend cpu_backend_v3, cpu_backend_v4, cpu_backend_generic;

#if defined(__clang__) && __clang_major__ < 19 /* builds the fuzzers; knows features, but not the names of the levels */
#define HAS_V3 (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2"))
#define HAS_V4                                                                                                                   \
    (HAS_V3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&  \
     __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
#else
#define HAS_V3 __builtin_cpu_supports("x86-64-v3")
#define HAS_V4 __builtin_cpu_supports("x86-64-v4")
#endif

const CpuBackend *cpu_backend_supported(int index) {
#ifdef ADAMEM_CPU_V4
    if (HAS_V4 && index-- == 0) return &cpu_backend_v4;
#endif
#ifdef ADAMEM_CPU_V3
    if (HAS_V3 && index-- == 0) return &cpu_backend_v3;
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
