/* One step of generation: the packed batch of new rows, its pass through the decoder, and the logits behind some rows. */
#ifndef MODEL_GENERATION_STEP_H
#define MODEL_GENERATION_STEP_H

#include "model/kv_cache.h"

typedef struct GenerationStep {
    const Decoder *decoder;
    Tape *tape;
    int64_t most_tokens, most_sequences, table_width;                     /* room */
    int64_t tokens, sequences, sampled, longest;                          /* of the batch being built */
    int32_t *host, *device;                                               /* one array of integers; device == host on a CPU */
    int32_t *ids, *positions, *slots, *offsets, *lengths, *rows, *tables; /* parts of host */
    float *logits;                                                        /* host copy, absent on a CPU */
    struct GenerationEmbedded *embedded;                                  /* [most_sequences] */
    int64_t embedded_count;
} GenerationStep;

/* Rows of the batch that are no tokens but embeddings. */
typedef struct GenerationEmbedded {
    int64_t first_row, rows;
    const void *data; /* [rows, hidden_size], decoder's dtype, host */
} GenerationEmbedded;

/* Room for a batch; keeps what fits. decoder and tape are borrowed. */
Status generation_step_reserve(GenerationStep *step, const Decoder *decoder, Tape *tape, int64_t tokens, int64_t sequences,
                               int64_t table_width);
void generation_step_free(GenerationStep *step);

void generation_step_clear(GenerationStep *step);
/* Adds rows of a sequence whose first `before` rows are in the cache: embedded->rows embeddings (first_row is not read), then
 * count tokens; table: its blocks. sample: the logits behind the last of them are wanted. */
void generation_step_add(GenerationStep *step, GenerationEmbedded embedded, const int32_t *ids, int64_t count, int64_t before,
                         const int32_t *table, int64_t table_count, bool sample);
/* Runs the batch and waits. *logits: host memory, [sampled, vocabulary] in the order of generation_step_add; may be changed;
 * valid until the next step. NULL when nothing was to be sampled. */
Status generation_step_run(GenerationStep *step, KvCache *cache, float **logits);

#endif
