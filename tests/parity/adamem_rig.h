/* A small AdaMem network beside its decoder, for tests: opened from a golden case or with other settings, batches read from
 * JSON, whole steps. Everything here calls the program's own code. */
#ifndef TESTS_PARITY_ADAMEM_RIG_H
#define TESTS_PARITY_ADAMEM_RIG_H

#include "model/adamem.h"
#include "tests/parity/golden.h"

typedef struct AdamemRig {
    Device *device;
    Parameters *parameters;
    Arena *arena;
    Tape *tape;
    Safetensors *weights;
    Decoder *decoder;
    Adamem *adamem;
    AdamemConfig config;
    ModelConfig model;
} AdamemRig;

/* The decoder of the AdaMem goldens and a network of this configuration, its values not set. */
void adamem_rig_open(AdamemRig *rig, const AdamemConfig *config, DType dtype);
/* Configuration and values of a golden case. */
void adamem_rig_open_case(AdamemRig *rig, const char *name);
/* The configuration of a case alone. */
AdamemConfig adamem_rig_config(const char *name);
void adamem_rig_close(AdamemRig *rig);

/* A batch in host memory. */
typedef struct AdamemBatch {
    AdamemContexts contexts;
    AdamemQueries queries;
    AdamemTokens tokens, answers;
    AdamemContexts teacher; /* the context of each query */
    int32_t *groups;
    int64_t *label_sequence, *label_token; /* [label_count] token t of sequence s is a label */
    int32_t *labels;
    int64_t label_count;
    double temperature, nll, kl, contrastive, diversity; /* temperature, weights of the losses */
} AdamemBatch;
void adamem_batch_read(const char *name_of_case, AdamemBatch *batch);
void adamem_batch_free(AdamemBatch *batch);

/* What one step leaves behind; malloc'd, free with adamem_step_free. */
typedef struct AdamemStep {
    float *memory, *latents, *logits; /* [M,D], [sum K,D], [decoder tokens, V] */
    float *nll, *kl, *contrastive, *diversity;
    int64_t memory_rows, latent_rows, token_rows;
    double loss;
    float *gradient; /* the flat array; NULL without recording */
} AdamemStep;
AdamemStep adamem_rig_step(AdamemRig *rig, const AdamemBatch *batch, bool recording, unsigned recompute);
void adamem_step_free(AdamemStep *step);

/* A batch of some of the contexts and queries of another: what adamem_rig_step needs without labels is not copied. */
typedef struct AdamemSelection {
    AdamemContexts contexts;
    AdamemQueries queries;
    AdamemTokens tokens;
} AdamemSelection;

AdamemSelection adamem_select(const AdamemBatch *from, const int64_t *contexts, int64_t context_count, const int64_t *queries,
                              int64_t query_count);
void adamem_selection_free(AdamemSelection *s);

/* Values of one forward pass and where each list's rows are. */
typedef struct AdamemResult {
    float *memory, *latents, *hidden;
    int64_t memory_offsets[8], latent_offsets[8], first_row[8];
} AdamemResult;

AdamemResult adamem_rig_forward(AdamemRig *rig, const AdamemSelection *s);
void adamem_result_free(AdamemResult *r);

/* n floats of a device tensor in F32; malloc'd. */
float *adamem_rig_floats(AdamemRig *rig, Tensor x);

#endif
