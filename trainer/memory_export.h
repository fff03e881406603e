/* A trained latent memory as files of its own. */
#ifndef TRAINER_MEMORY_EXPORT_H
#define TRAINER_MEMORY_EXPORT_H

#include "io/checkpoint.h"
#include "trainer/options.h"

/* Writes memory.safetensors (all tensors under memory., dtype "float32", "bfloat16", "float16") and memory_config.json into
 * directory. What is not trained has the values that the run began with, which takes the base model at model.path. */
Status export_memory(const Checkpoint *checkpoint, const Options *options, const char *dtype, const char *directory);

#endif
