/* A small tokenizer cut from a large one: for tests and for toy models that should not carry 151,665 embeddings. */
#ifndef IO_TOKENIZER_CUT_H
#define IO_TOKENIZER_CUT_H

#include "io/status.h"

#include <stdint.h>

/* Reads the tokenizer in source_dir and writes tokenizer.json and tokenizer_config.json into output_dir (created): the 256
 * byte tokens and the first merges, vocabulary_size entries in all, with new consecutive ids in the old order, then
 * <|endoftext|>, <|im_start|> and <|im_end|>; pattern and normaliser as in the source, Qwen2.5's chat template, eos_token
 * <|im_end|>. Hugging Face reads the result. STATUS_INVALID when vocabulary_size is below 256 or above what there is. */
Status tokenizer_cut(const char *source_dir, int32_t vocabulary_size, const char *output_dir);

#endif
