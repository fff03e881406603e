/* PEFT adapter directories: adapter_config.json and adapter_model.safetensors, as PeftModel.from_pretrained reads them. */
#ifndef TRAINER_PEFT_H
#define TRAINER_PEFT_H

#include "io/checkpoint.h"
#include "io/json_value.h"
#include "trainer/options.h"

/* adapter_config.json of these options' LoRA; caller frees. */
Status peft_config_json(const Options *options, JsonValue **out);
/* Replaces options' lora group by what DIRECTORY/adapter_config.json says (init_from = directory). Another PEFT type and
 * features this program does not compute (DoRA, bias, modules_to_save, ...) are STATUS_INVALID naming file and key. */
Status peft_read_config(const char *directory, Options *options);
/* STATUS_INVALID naming the key where DIRECTORY/adapter_config.json and options' lora group describe different adapters
 * (targets, ranks, scale). */
Status peft_check_config(const char *directory, const Options *options);

#endif
