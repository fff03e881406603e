/* train --dry-run: the plan of a run as one JSON object, from the model's config.json alone. */
#ifndef TRAINER_DRY_RUN_H
#define TRAINER_DRY_RUN_H

#include "trainer/options.h"
#include "trainer/ranks.h"

#include <stdint.h>

typedef struct DryRunSettings {
    int world_size;
    int64_t device_memory; /* bytes; 0 = not given */
    const char *at;        /* "1,100": numbers of updates; NULL = a default choice */
} DryRunSettings;

/* Collective (data may be prepared); rank 0 prints. Without tokenizer and cache, lines are counted instead of samples. */
Status dry_run_print(const Options *options, const Ranks *ranks, const DryRunSettings *settings);

#endif
