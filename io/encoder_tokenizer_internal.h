/* The parts of the encoder tokenizers; private to io/encoder_tokenizer*.c and its tests.
 *
 *   encoder_tokenizer_load.c       reads a directory, refuses what is not known
 *   encoder_tokenizer_wordpiece.c  BERT's normalisation, words and their pieces
 *   encoder_tokenizer.c            special tokens, byte-level words, length */
#ifndef IO_ENCODER_TOKENIZER_INTERNAL_H
#define IO_ENCODER_TOKENIZER_INTERNAL_H

#include "io/encoder_tokenizer.h"
#include "io/tokenizer_internal.h"

typedef struct WordPiece {
    Vocabulary vocabulary;
    int32_t unknown_id;
    size_t most_characters; /* a longer word is unknown */
    char *continuation;     /* "##", in front of every piece of a word but the first; owned */
    bool clean, lower_case, strip_accents, split_chinese;
    bool compose; /* NFC: the Python tokenizer does, one from tokenizer.json does not */
} WordPiece;

typedef struct WordPieceScratch {
    Text cleaned, stripped, word;
    NormalizerScratch normalizer;
} WordPieceScratch;

/* Appends the ids of well-formed text without special tokens. */
Status wordpiece_encode(const WordPiece *model, const Normalizer *normalizer, WordPieceScratch *scratch, const char *text,
                        size_t length, TokenList *out);

struct EncoderTokenizer {
    EncoderTokenizerKind kind;
    WordPiece wordpiece;
    Tokenizer bytes; /* vocabulary, merges and pattern of the byte level; its normalizer serves WordPiece too */
    AddedTokens added;
    int32_t strip_left_id; /* this added token takes the white space in front of it away; -1: none does */
    int32_t first_id, last_id;
    int64_t max_length;
    bool prefix_space;
    /* Scratch. */
    WordPieceScratch wordpiece_scratch;
    TokenizerScratch bytes_scratch;
    Text text;
};

#endif
