/* Tokenizers of encoder models: WordPiece (BERT; Devlin et al. 2019) and byte-level BPE (RoBERTa, BART), with their special
 * tokens around the text, as the Python tokenizers of Transformers 4.57 (the ones the bert-score package asks for) give them.
 *
 * A directory holds vocab.txt (WordPiece) or vocab.json and merges.txt (byte level), or a tokenizer.json of that kind, and
 * tokenizer_config.json. What would change ids and is not implemented is refused by its name. Not for several threads. */
#ifndef IO_ENCODER_TOKENIZER_H
#define IO_ENCODER_TOKENIZER_H

#include "io/buffer.h"

#include <stdbool.h>

typedef enum EncoderTokenizerKind { ENCODER_TOKENIZER_WORDPIECE, ENCODER_TOKENIZER_BYTE_LEVEL } EncoderTokenizerKind;

typedef struct EncoderTokenizer EncoderTokenizer;

/* STATUS_INVALID names the file, or what the directory lacks. */
Status encoder_tokenizer_load(const char *directory, EncoderTokenizerKind kind, EncoderTokenizer **out);
void encoder_tokenizer_free(EncoderTokenizer *tokenizer); /* accepts NULL */

/* Appends the first token, the text's, and the last: [CLS] text [SEP] or <s> text </s>. White space around the text is
 * removed; then prefix_space puts one space in front (byte level only: the first word is then written as one inside a
 * sentence). Special tokens written in the text are recognised. At most max_length ids (>= 2): the text is cut at its end.
 * Invalid UTF-8 is STATUS_INVALID with the byte offset. */
Status encoder_tokenizer_encode(EncoderTokenizer *tokenizer, const char *text, size_t length, bool prefix_space,
                                int64_t max_length, TokenList *out);

int32_t encoder_tokenizer_first_id(const EncoderTokenizer *tokenizer); /* [CLS], <s> */
int32_t encoder_tokenizer_last_id(const EncoderTokenizer *tokenizer);  /* [SEP], </s> */
int32_t encoder_tokenizer_size(const EncoderTokenizer *tokenizer);     /* one more than the largest id */
/* tokenizer_config.json: model_max_length, INT64_MAX without a limit; add_prefix_space. */
int64_t encoder_tokenizer_max_length(const EncoderTokenizer *tokenizer);
bool encoder_tokenizer_prefix_space(const EncoderTokenizer *tokenizer);

#endif
