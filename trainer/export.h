/* Turning a checkpoint into directories that other programs read. */
#ifndef TRAINER_EXPORT_H
#define TRAINER_EXPORT_H

#include "io/checkpoint.h"
#include "trainer/options.h"

/* PEFT adapter directory: adapter_config.json, adapter_model.safetensors (dtype "float32", "bfloat16", "float16"). A
 * checkpoint with trained base tensors is STATUS_INVALID: only a merged model can carry them. A latent memory takes the place of
 * the adapter: memory.safetensors, memory_config.json. */
Status export_peft(const Checkpoint *checkpoint, const Options *options, const char *dtype, const char *output);

/* Hugging Face directory: base + s B A added in fp32 and rounded once to dtype, trained base tensors from the checkpoint,
 * the other files of the model directory copied; beside them the files of a latent memory. */
Status export_merged(const Checkpoint *checkpoint, const Options *options, const char *dtype, const char *output);

#endif
