/* A long text cut into chunks of tokens: overlapping, at sentence ends where there are any, never inside a character.
 *
 * Every token of the text is in at least one chunk: chunks lie end to end or overlap, the first begins at token 0 and the last
 * ends at the last token. */
#ifndef TRAINER_CHUNKS_H
#define TRAINER_CHUNKS_H

#include "io/string_list.h"
#include "io/tokenizer.h"

/* How good a place to cut is; of the places in reach the best is taken. */
typedef enum CutPlace { CUT_CHARACTER_INSIDE, CUT_CHARACTER, CUT_SPACE, CUT_LINE, CUT_SENTENCE } CutPlace;

/* A text with its tokens. bytes is what the tokens stand for: the text in the tokenizer's normal form. */
typedef struct TokenText {
    Text bytes;
    TokenList tokens;
    int64_t *starts; /* [tokens.count + 1]: token i is bytes[starts[i]] .. bytes[starts[i + 1] - 1] */
    uint8_t *places; /* [tokens.count + 1]: CutPlace in front of token i */
} TokenText;

/* Sentences end as io/words.h says. Any UTF-8 will do, the empty text too. After an error nothing is held. */
Status token_text_make(const Tokenizer *tokenizer, TokenizerScratch *scratch, const StringList *abbreviations, const char *bytes,
                       size_t length, TokenText *out);
void token_text_free(TokenText *text);

typedef struct Chunk {
    int64_t begin, end; /* tokens */
} Chunk;
typedef struct ChunkList {
    Chunk *chunks;
    int64_t count, capacity;
} ChunkList;

enum { CHUNK_LEAST_TOKENS = 64 };

/* Replaces *out by the chunks of the text: at most chunk_tokens (at least CHUNK_LEAST_TOKENS) tokens each. A chunk ends at the
 * last of the best places in its last quarter. The next one begins at the first of the best places among the overlap_tokens (at
 * most half of chunk_tokens) in front of that end, so that it repeats at most these. An empty text has no chunk. */
Status chunks_cut(const TokenText *text, int64_t chunk_tokens, int64_t overlap_tokens, ChunkList *out);
void chunk_list_free(ChunkList *list);

#endif
