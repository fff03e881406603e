/* cuDNN itself, without a GPU, on the attention graphs: it recognises them as attention, has engines for every head shape of
 * Qwen2.5 on the A100 and the H200, compiles their kernels and asks for no more workspace than the scratch of the ops grants.
 * What it cannot do (a backward pass that repeats its bits on the A100, or in little memory before cuDNN 9.25) is refused with
 * the reason. Nothing is computed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "kernels/cuda/cudnn_attention.h"
#include "kernels/scratch.h"

/* The keys and types that cuDNN reads. */
#define GPU_JSON(name, version, multiprocessors, shared, l2, memory)                                                             \
    "{\"cudaDeviceId\":0,\"deviceName\":\"" name "\",\"deviceVer\":" version ",\"driverVer\":13000,\"isTccDriver\":0,"           \
    "\"l2CacheSize\":" l2 ",\"maxBlockSize\":[1024,1024,64],\"maxCtasPerSM\":32,\"maxGridSize\":[2147483647,65535,65535],"       \
    "\"maxRegistersPerSM\":65536,\"maxSharedMemoryPerBlock\":49152,\"maxSharedMemoryPerBlockOptin\":" shared ","                 \
    "\"maxThreadsPerBlock\":1024,\"maxThreadsPerSM\":2048,\"memClockRateKHz\":1593000,\"multiProcessorCount\":" multiprocessors  \
    ",\"oversizedSharedMemoryPerBlock\":0,\"pciDeviceId\":0,\"regsPerBlock\":65536,\"reservedSharedMemoryPerBlock\":1024,"       \
    "\"smClockRateKHz\":1410000,\"supportCoopLaunch\":1,\"totalGlobalMem\":" memory ",\"warpSize\":32}"

typedef struct Gpu {
    const char *name, *json;
    int capability;
} Gpu;

static const Gpu a100 = {"A100", GPU_JSON("NVIDIA A100-SXM4-80GB", "800", "108", "166912", "41943040", "85899345920"), 80};
static const Gpu h200 = {"H200", GPU_JSON("NVIDIA H200", "900", "132", "232448", "62914560", "150121545728"), 90};

static const struct Heads {
    const char *model;
    int64_t query, key, dimension;
} presets[] = {{"0.5B", 14, 2, 64}, {"1.5B", 12, 2, 128}, {"3B", 16, 2, 128}, {"7B", 28, 4, 128}, {"ungrouped", 4, 4, 64}};
enum { PRESETS = sizeof presets / sizeof *presets, FIRST_ORDERED = 92500 };

static CudnnLibrary *library;

static int load(void **state) {
    (void)state;
    void *driver = dlopen(CUDA_DRIVER_STAND_IN, RTLD_NOW | RTLD_GLOBAL); /* has the name under which cuDNN looks for the driver */
    if (!driver) fail_msg("%s", dlerror());
    Status status = cudnn_library_open(CUDNN_LIBRARY_NAME, &library);
    if (!status) return 0;
    print_message("skipped: %s\n", status_message(status));
    status_free(status);
    return 0;
}

static int unload(void **state) {
    (void)state;
    if (library) cudnn_library_close(library);
    return 0;
}

static cudnnBackendDescriptor_t describe(const Gpu *gpu) {
    cudnnBackendDescriptor_t target;
    Status status = cudnn_target_of_json(library, gpu->json, &target);
    if (status) fail_msg("%s: %s", gpu->name, status_message(status));
    return target;
}

/* The workspace that the ops would grant a batch that fills the bounds. */
static int64_t granted(CudnnAttentionShape shape) {
    const SequenceLayout layout = {
        .tokens = shape.sequences * shape.longest, .sequences = shape.sequences, .longest = shape.longest};
    const AttentionShape heads = {shape.query_heads, shape.key_heads, shape.head_dimension, 1, shape.causal};
    return (int64_t)scratch_attention_cudnn(&layout, heads, shape.backward);
}

/* The plan written out holds the names of its kernels: attention, of this pass, for this GPU. */
static void check_kernel(const Gpu *gpu, const CudnnAttentionPlan *plan, const char *text) {
    int64_t bytes = 0, count = 0;
    const cudnnBackendAttributeName_t attribute = CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION;
    assert_int_equal(library->get_attribute(plan->plan, attribute, CUDNN_TYPE_CHAR, 0, &bytes, NULL), CUDNN_STATUS_SUCCESS);
    char *json = calloc(1, (size_t)bytes + 1);
    assert_int_equal(library->get_attribute(plan->plan, attribute, CUDNN_TYPE_CHAR, bytes, &count, json), CUDNN_STATUS_SUCCESS);
    char *kernel = strstr(json, "_sdpa_sm");
    if (!kernel) fail_msg("%s: the plan has no attention kernel", text);
    kernel[strcspn(kernel, "\"")] = 0;
    if (!strstr(kernel, plan->shape.backward ? "_flash_bprop_" : "_flash_fprop_") ||
        strtol(kernel + strlen("_sdpa_sm"), NULL, 10) > gpu->capability)
        fail_msg("%s: kernel %s", text, kernel);
    print_message("%s: engine %d, %lld bytes, %s\n", text, (int)plan->engine, (long long)plan->workspace_bytes, kernel);
    free(json);
}

static void check_plan(const Gpu *gpu, cudnnBackendDescriptor_t target, CudnnAttentionShape shape) {
    const int64_t most = granted(shape);
    const bool scores_kept = shape.backward && library->version < FIRST_ORDERED;
    /* cuDNN rounds the rows of scores up to 64, the columns to 128 */
    const int64_t scores =
        shape.sequences * shape.query_heads * ((shape.longest + 63) / 64 * 64) * ((shape.longest + 127) / 128 * 128) * 2;
    CudnnAttentionPlan *plan;
    Status status = cudnn_attention_plan_create(library, target, gpu->capability, shape, most, &plan);
    char text[200];
    snprintf(text, sizeof text, "%s, %d/%d heads of %d, %d x %d, causal %d, %s", gpu->name, (int)shape.query_heads,
             (int)shape.key_heads, (int)shape.head_dimension, (int)shape.sequences, (int)shape.longest, shape.causal,
             shape.backward ? "backward" : "forward");
    if (shape.backward && gpu->capability < 90) {
        if (!status || !strstr(status_message(status), "repeats its bits")) fail_msg("%s: not refused", text);
    } else if (scores_kept && scores > most) {
        if (!status || !strstr(status_message(status), "MB of workspace")) fail_msg("%s: not refused for its workspace", text);
    } else {
        if (status) fail_msg("%s: %s", text, status_message(status));
        check_kernel(gpu, plan, text);
        assert_int_equal(plan->ordered_dq, shape.backward && !scores_kept);
        assert_true(plan->workspace_bytes <= most);
        cudnn_attention_plan_destroy(plan);
    }
    status_free(status);
}

static void check_presets(const Gpu *gpu) {
    if (!library) skip();
    cudnnBackendDescriptor_t target = describe(gpu);
    for (int p = 0; p < PRESETS; ++p)
        for (int causal = p == 0 ? 0 : 1; causal < 2; ++causal)
            for (int backward = 0; backward < 2; ++backward)
                check_plan(
                    gpu, target,
                    (CudnnAttentionShape){8, 512, presets[p].query, presets[p].key, presets[p].dimension, causal, backward});
    (void)library->destroy_descriptor(target);
}

static void test_presets_on_h200(void **state) {
    (void)state;
    check_presets(&h200);
}

static void test_presets_on_a100(void **state) {
    (void)state;
    check_presets(&a100);
}

/* From one sequence of few tokens to many, and to long ones. */
static void test_batches(void **state) {
    (void)state;
    static const int64_t bounds[][2] = {{1, 64}, {1024, 64}, {64, 256}, {1, 4096}, {2, 32768}};
    if (!library) skip();
    cudnnBackendDescriptor_t target = describe(&h200);
    for (size_t i = 0; i < sizeof bounds / sizeof *bounds; ++i)
        for (int backward = 0; backward < 2; ++backward)
            check_plan(&h200, target, (CudnnAttentionShape){bounds[i][0], bounds[i][1], 28, 4, 128, true, backward});
    (void)library->destroy_descriptor(target);
}

static void test_too_little_workspace_is_refused(void **state) {
    (void)state;
    if (!library) skip();
    cudnnBackendDescriptor_t target = describe(&h200);
    CudnnAttentionPlan *plan;
    Status status =
        cudnn_attention_plan_create(library, target, 90, (CudnnAttentionShape){8, 512, 16, 2, 128, true, true}, 100, &plan);
    assert_non_null(status);
    assert_null(plan);
    assert_non_null(strstr(status_message(status), "MB of workspace, more than 0.0 MB"));
    status_free(status);
    (void)library->destroy_descriptor(target);
}

static void test_wrong_shapes_are_refused(void **state) {
    (void)state;
    if (!library) skip();
    cudnnBackendDescriptor_t target = describe(&h200);
    CudnnAttentionPlan *plan;
    Status status =
        cudnn_attention_plan_create(library, target, 90, (CudnnAttentionShape){8, 512, 5, 2, 64, true, false}, 1 << 20, &plan);
    assert_non_null(status); /* heads that cannot be shared out */
    assert_null(plan);
    status_free(status);
    (void)library->destroy_descriptor(target);
    status = cudnn_target_of_json(library, "{\"deviceVer\":900}", &target);
    assert_non_null(status);
    assert_non_null(strstr(status_message(status), "describing the GPU"));
    status_free(status);
}

static void test_absent_library_is_said(void **state) {
    (void)state;
    CudnnLibrary *absent;
    Status status = cudnn_library_open("libcudnn-of-no-version.so.9", &absent);
    assert_non_null(status);
    assert_null(absent);
    assert_non_null(strstr(status_message(status), "cuDNN is absent: "));
    status_free(status);
    status = cudnn_library_open("libc.so.6", &absent);
    assert_non_null(strstr(status_message(status), "cuDNN is too old: it lacks cudnnGetVersion"));
    status_free(status);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_presets_on_h200),
        cmocka_unit_test(test_presets_on_a100),
        cmocka_unit_test(test_batches),
        cmocka_unit_test(test_too_little_workspace_is_refused),
        cmocka_unit_test(test_wrong_shapes_are_refused),
        cmocka_unit_test(test_absent_library_is_said),
    };
    return cmocka_run_group_tests(tests, load, unload);
}
