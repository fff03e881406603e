/* The plan's arena peak is that of a real training step, to the byte: the arena of a GPU is made as large as the plan says.
 * Built a second time for the emulated GPU. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "trainer/objectives/objective.h"

#ifdef ADAMEM_CUDA_ON_HOST
#define BACKEND "cuda"
#else
#define BACKEND "cpu"
#endif

static const char model_config[] =
    "{\"architectures\": [\"Qwen2ForCausalLM\"], \"model_type\": \"qwen2\", \"hidden_size\": 64, \"intermediate_size\": 96,"
    " \"num_attention_heads\": 4, \"num_hidden_layers\": 2, \"num_key_value_heads\": 2, \"vocab_size\": 200,"
    " \"max_position_embeddings\": 512, \"rms_norm_eps\": 1e-6, \"rope_theta\": 10000.0, \"tie_word_embeddings\": false}";

static void expect_ok(Status status) {
    if (status) fail_msg("%s", status_message(status));
}

/* A job of one rank, without MPI. */
static Status keep_i64(Communicator *c, int64_t *data, int64_t count) {
    (void)c, (void)data, (void)count;
    return STATUS_OK;
}
static Status keep_i32(Communicator *c, int32_t *data, int64_t count) {
    (void)c, (void)data, (void)count;
    return STATUS_OK;
}
static Status keep_bytes(Communicator *c, void *data, int64_t bytes, int root) {
    (void)c, (void)data, (void)bytes, (void)root;
    return STATUS_OK;
}
static Status gather_own(Communicator *c, const void *in, void *out, int64_t bytes) {
    (void)c;
    memcpy(out, in, (size_t)bytes);
    return STATUS_OK;
}
static const CommunicatorOps alone = {
    .name = "one rank", .sum_i64 = keep_i64, .max_i32 = keep_i32, .broadcast = keep_bytes, .all_gather = gather_own};

static PackedBatch worst_case(WorstBatch worst) {
    const int64_t tokens = worst.sequences * worst.longest;
    int32_t *ids = calloc((size_t)tokens, sizeof *ids), *labels = calloc((size_t)tokens, sizeof *labels);
    int64_t *ends = calloc((size_t)worst.sequences, sizeof *ends), *samples = calloc((size_t)worst.sequences, sizeof *samples);
    PackedBatch packed;
    assert_true(ids && labels && ends && samples);
    for (int64_t s = 0; s < worst.sequences; ++s) ends[s] = (s + 1) * worst.longest, samples[s] = s;
    for (int64_t i = 0; i < tokens; ++i) {
        ids[i] = (int32_t)(i % 197);
        labels[i] = i % worst.longest >= worst.longest - worst.labels_per_sequence ? (int32_t)(i % 191) : -100;
    }
    expect_ok(packed_batch_build(ids, labels, ends, samples, worst.sequences, &packed));
    free(ids);
    free(labels);
    free(ends);
    free(samples);
    return packed;
}

static void check(const char *directory, const char *dtype, const char *checkpointing, const char *trainable, const char *lora) {
    char text[1024];
    snprintf(text, sizeof text,
             "run = { backend = \"" BACKEND "\"; threads = 1; }; model = { path = \"%s\"; dtype = \"%s\"; trainable = %s; }; "
             "training = { gradient_checkpointing = \"%s\"; }; lora = { %s };",
             directory, dtype, trainable, checkpointing, lora);
    Options options;
    Session session;
    Launch launch = {.world = 1, .local_world = 1};
    Communicator communicator = {.ops = &alone, .world = 1};
    expect_ok(options_load_text("test", text, &options));
    SessionSettings settings = {.worst = {3, 24, 16}, .training = true, .random_weights = true};
    expect_ok(session_open(&options, &launch, &communicator, settings, &session));
    PackedBatch packed = worst_case(settings.worst);
    for (int step = 1; step <= 2; ++step) { /* the second step finds the arena as the first one left it */
        double loss;
        ObjectiveInput input = {
            .batch = &packed, .step = step, .training = true, .recompute = session.recompute, .label_tokens = 48};
        expect_ok(objective_by_name("sft")->forward(&session, &input, &loss));
        expect_ok(tape_backward(session.tape));
        assert_int_equal(arena_used(session.arena), 0);
        if ((int64_t)arena_peak(session.arena) != session.plan.activations)
            fail_msg("%s, recomputed: %s, trained: %s %s: planned %lld bytes, taken %lld", dtype, checkpointing, trainable, lora,
                     (long long)session.plan.activations, (long long)arena_peak(session.arena));
    }
    packed_batch_free(&packed);
    session_close(&session);
    options_free(&options);
}

static void test_peak_is_planned(void **state) {
    static const char *const trained[][2] = {
        {"[]", "r = 4; lora_dropout = 0.1; target_modules = [ \"all-linear\" ];"},
        {"[]", "r = 8; target_modules = [ \"q_proj\", \"v_proj\" ];"},
        {"[ \".*\" ]", ""},
    };
    static const char *const dtypes[] = {"float32", "bfloat16"}, *const checkpointing[] = {"none", "full"};
    for (int t = 0; t < 3; ++t)
        for (int d = 0; d < 2; ++d)
            for (int c = 0; c < 2; ++c) check(*state, dtypes[d], checkpointing[c], trained[t][0], trained[t][1]);
}

static int make_model(void **state) {
    static char directory[] = "/tmp/adamem-test-plan-XXXXXX";
    char path[128];
    if (!mkdtemp(directory)) return -1;
    snprintf(path, sizeof path, "%s/config.json", directory);
    FILE *file = fopen(path, "w");
    if (!file || fputs(model_config, file) < 0 || fclose(file) != 0) return -1;
    *state = directory;
    return 0;
}

static int remove_model(void **state) {
    char path[128];
    snprintf(path, sizeof path, "%s/config.json", (char *)*state);
    return unlink(path) || rmdir(*state);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_peak_is_planned)};
    return cmocka_run_group_tests(tests, make_model, remove_model);
}
