/* A small model, a job of one rank without MPI, and a batch: for tests that open a session. One test program, one file. */
#ifndef TESTS_UNIT_SMALL_SESSION_H
#define TESTS_UNIT_SMALL_SESSION_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "trainer/objectives/objective.h"

#ifndef SMALL_VOCABULARY
#define SMALL_VOCABULARY "200"
#endif

static const char small_model_config[] =
    "{\"architectures\": [\"Qwen2ForCausalLM\"], \"model_type\": \"qwen2\", \"hidden_size\": 64, \"intermediate_size\": 96,"
    " \"num_attention_heads\": 4, \"num_hidden_layers\": 2, \"num_key_value_heads\": 2, \"vocab_size\": " SMALL_VOCABULARY ","
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
    for (int rank = 0; rank < c->world; ++rank) memcpy((char *)out + rank * bytes, in, (size_t)bytes);
    return STATUS_OK;
}
static const CommunicatorOps small_alone = {
    .name = "one rank", .sum_i64 = keep_i64, .max_i32 = keep_i32, .broadcast = keep_bytes, .all_gather = gather_own};

/* Of that shape, labels at the end of each sequence. */
static inline PackedBatch small_batch(WorstBatch worst) {
    const int64_t tokens = worst.sequences * worst.longest + worst.rest, sequences = worst.sequences + (worst.rest > 0);
    int32_t *ids = calloc((size_t)tokens, sizeof *ids), *labels = calloc((size_t)tokens, sizeof *labels);
    int64_t *ends = calloc((size_t)sequences, sizeof *ends), *samples = calloc((size_t)sequences, sizeof *samples);
    PackedBatch packed;
    assert_true(ids && labels && ends && samples);
    for (int64_t s = 0; s < sequences; ++s) {
        ends[s] = s < worst.sequences ? (s + 1) * worst.longest : tokens;
        samples[s] = s;
        for (int64_t i = s * worst.longest; i < ends[s]; ++i) {
            ids[i] = (int32_t)(i % 197);
            labels[i] = i >= ends[s] - worst.labels_per_sequence ? (int32_t)(i % 191) : -100;
        }
    }
    expect_ok(packed_batch_build(ids, labels, ends, samples, sequences, &packed));
    free(ids);
    free(labels);
    free(ends);
    free(samples);
    return packed;
}

static int small_model_make(void **state) {
    static char directory[] = "/tmp/adamem-test-plan-XXXXXX";
    char path[128];
    if (!mkdtemp(directory)) return -1;
    snprintf(path, sizeof path, "%s/config.json", directory);
    FILE *file = fopen(path, "w");
    if (!file || fputs(small_model_config, file) < 0 || fclose(file) != 0) return -1;
    *state = directory;
    return 0;
}

static int small_model_remove(void **state) {
    char path[128];
    snprintf(path, sizeof path, "%s/config.json", (char *)*state);
    return unlink(path) || rmdir(*state);
}

#endif
