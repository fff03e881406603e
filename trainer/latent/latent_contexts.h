/* Contexts kept as the coarse memory of a latent memory: read once, asked many times. */
#ifndef TRAINER_LATENT_CONTEXTS_H
#define TRAINER_LATENT_CONTEXTS_H

#include "trainer/text_model.h"

typedef struct LatentContext {
    char *id; /* as JSON text: a string or a number */
    AdamemKept kept;
    TokenList ids;
} LatentContext;

typedef struct LatentContexts {
    LatentContext *items;
    int64_t count, capacity;
    double seconds; /* of encoding */
} LatentContexts;

/* Lines {"id", "context"}, encoded in bounded memory; rows are kept in bfloat16. Ids are distinct. Errors name file and line. */
Status latent_contexts_read(const TextModel *model, const char *path, LatentContexts *out);
void latent_contexts_free(LatentContexts *contexts);
/* NULL when there is none. */
const LatentContext *latent_contexts_find(const LatentContexts *contexts, const char *id);

/* An id as JSON text; caller frees. */
Status latent_id(const JsonValue *record, const char *key, char **out);

#endif
