/* Generation on the GPU's backend against the CPU's and Transformers': the same ids in fp32, whatever the batch. */
#include "tests/generation/model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

enum { PROMPTS = 6, NEW_TOKENS = 20 };

/* The shortest of the golden prompts and one that spans blocks of the cache. */
static void few_prompts(const Prompts *all, GenerationRequest requests[PROMPTS]) {
    for (int i = 0; i < PROMPTS; ++i) requests[i] = all->requests[i < PROMPTS - 1 ? i : 12];
}

static void run_on(BackendKind backend, const char *name, bool lora, bool sampled, int64_t batch, int64_t prefill, Results *out) {
    Model model;
    Prompts prompts;
    GenerationRequest requests[PROMPTS];
    model_open_on(&model, backend, name, DTYPE_F32, lora);
    prompts_open(&prompts, name);
    few_prompts(&prompts, requests);
    GenerationSettings settings = model_settings(&model);
    settings.max_new_tokens = NEW_TOKENS;
    settings.batch_size = batch;
    settings.prefill_tokens = prefill;
    if (sampled)
        settings.sampling = (SamplingSettings){.temperature = 0.8, .top_k = 50, .top_p = 0.95, .repetition_penalty = 1.1};
    succeeds(run_generation(&model, &settings, requests, PROMPTS, out));
    prompts_close(&prompts);
    model_close(&model);
}

static void greedy_is_transformers(void **state) {
    (void)state;
    Prompts prompts;
    Results results;
    int64_t tokens = 0;
    prompts_open(&prompts, "untied");
    run_on(BACKEND_CUDA, "untied", false, false, 3, 50, &results);
    for (int i = 0; i < PROMPTS; ++i) {
        int64_t from = i < PROMPTS - 1 ? i : 12, count = results.counts[i];
        assert_true(count == NEW_TOKENS || count == prompts.expected_count[from]);
        assert_memory_equal(results.ids[i], prompts.expected[from], (size_t)count * sizeof(int32_t));
        tokens += count;
    }
    printf("%d tokens equal\n", (int)tokens);
    assert_true(tokens > PROMPTS * NEW_TOKENS / 2);
    results_free(&results);
    prompts_close(&prompts);
}

static void both_backends_agree(const char *name, bool lora, bool sampled) {
    Results cpu, cuda;
    run_on(BACKEND_CPU, name, lora, sampled, 1, 512, &cpu);
    run_on(BACKEND_CUDA, name, lora, sampled, 4, 40, &cuda);
    expect_same_results(&cpu, &cuda);
    results_free(&cpu);
    results_free(&cuda);
}
static void greedy_agrees(void **state) {
    (void)state;
    both_backends_agree("untied", false, false);
}
static void sampled_with_lora_agrees(void **state) {
    (void)state;
    both_backends_agree("untied", true, true);
}
static void tied_agrees(void **state) {
    (void)state;
    both_backends_agree("tied", false, false);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_is_transformers),
        cmocka_unit_test(greedy_agrees),
        cmocka_unit_test(sampled_with_lora_agrees),
        cmocka_unit_test(tied_agrees),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
