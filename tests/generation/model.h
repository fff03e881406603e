/* A model of tests/generation/data, for tests. */
#ifndef TESTS_GENERATION_MODEL_H
#define TESTS_GENERATION_MODEL_H

#include "model/generation.h"

typedef struct Model {
    ModelConfig config;
    Device *device;
    Arena *arena;
    Tape *tape;
    Parameters *parameters;
    Decoder *decoder;
    Safetensors *weights;
    int32_t *eos;
    int64_t eos_count;
} Model;

/* lora: of rank 4 on all seven linears, A and B random. */
void model_open(Model *model, const char *name, DType dtype, bool lora); /* on the CPU */
void model_open_on(Model *model, BackendKind backend, const char *name, DType dtype, bool lora);
void model_close(Model *model);

typedef struct Prompts {
    GenerationRequest *requests; /* [count]; sample = number */
    int32_t **expected;          /* [count] golden ids */
    int64_t *expected_count;
    double (*close)[8][2]; /* step and gap, ended by a step of -1 */
    int64_t count;
} Prompts;
/* greedy.jsonl of a model. */
void prompts_open(Prompts *prompts, const char *name);
void prompts_close(Prompts *prompts);

/* All continuations of a run: ids[i][0 .. counts[i]-1]. */
typedef struct Results {
    int32_t **ids;
    int64_t *counts;
    GenerationFinish *finishes;
    bool *window_ends;
    int64_t count, calls;
    char refusal[256]; /* the last one */
    Text text;         /* of the last one that ended by a stop string */
} Results;
Status run_generation(const Model *model, const GenerationSettings *settings, const GenerationRequest *requests, int64_t count,
                      Results *out);
void results_free(Results *results);
void expect_same_results(const Results *a, const Results *b);

GenerationSettings model_settings(const Model *model);
void succeeds(Status status);
/* STATUS class and a word of the message. */
void fails(Status status, int exit_code, const char *word);

#endif
