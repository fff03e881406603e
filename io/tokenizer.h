/* The byte-level BPE tokenizer of the Qwen2 family, read from a Hugging Face tokenizer.json (or vocab.json + merges.txt).
 *
 * Text is split at added tokens, each piece is normalised (NFC), cut by the pre-tokenizer pattern, mapped to the byte
 * alphabet and merged by rank (Sennrich et al. 2016, byte-level as GPT-2). A tokenizer.json whose model, normaliser,
 * pre-tokenizer or decoder is of another kind is refused by name. A Tokenizer is immutable after loading and may be used
 * by many threads, each with its own TokenizerScratch. */
#ifndef IO_TOKENIZER_H
#define IO_TOKENIZER_H

#include "io/buffer.h"

#include <stdbool.h>

typedef struct Tokenizer Tokenizer;
typedef struct TokenizerScratch TokenizerScratch; /* word cache, merge buffers, PCRE2 match data */

/* directory: holds tokenizer.json, or vocab.json and merges.txt; with tokenizer_config.json beside them where present.
 * tokenizer.json.gz is read too. STATUS_INVALID names the file. */
Status tokenizer_load(const char *directory, Tokenizer **out);
void tokenizer_free(Tokenizer *tokenizer);
Status tokenizer_scratch_new(const Tokenizer *tokenizer, TokenizerScratch **out);
void tokenizer_scratch_free(TokenizerScratch *scratch);

/* Appends the ids of length bytes of UTF-8. No special token is added; added tokens inside the text are recognised.
 * Invalid UTF-8 is STATUS_INVALID with the byte offset. */
Status tokenizer_encode(const Tokenizer *tokenizer, TokenizerScratch *scratch, const char *text, size_t length, TokenList *out);
/* Appends the text of ids. Invalid UTF-8 sequences become U+FFFD, as Hugging Face decodes. Unknown ids: STATUS_INVALID. */
Status tokenizer_decode(const Tokenizer *tokenizer, const int32_t *ids, size_t count, bool skip_special_tokens, Text *out);
/* Appends the bytes of ids as they are, a character that lies across tokens in parts; ends[i]: length of *out behind token i. */
Status tokenizer_token_bytes(const Tokenizer *tokenizer, const int32_t *ids, size_t count, Text *out, int64_t *ends);

/* One more than the largest id (151,665 for Qwen2.5; config.json's vocab_size is larger). */
int32_t tokenizer_size(const Tokenizer *tokenizer);
/* Id of an added token or of a vocabulary entry written in the byte alphabet; -1 when absent. */
int32_t tokenizer_token_id(const Tokenizer *tokenizer, const char *token);
/* eos_token of tokenizer_config.json; <|endoftext|> when there is no such file; -1 when neither exists. */
int32_t tokenizer_eos_id(const Tokenizer *tokenizer);
/* The Jinja chat template of tokenizer_config.json (or chat_template.jinja); NULL when absent. Borrowed. */
const char *tokenizer_chat_template(const Tokenizer *tokenizer);
/* SHA-256 over everything that influences ids (vocabulary, merges, added tokens, pattern, template). 64 hex digits. */
const char *tokenizer_fingerprint(const Tokenizer *tokenizer);

#endif
