/* The parts of the tokenizer, each in a file of its own; private to io/tokenizer*.c and its tests.
 *
 *   tokenizer_load.c        reads a directory, refuses what is not known
 *   tokenizer_vocabulary.c  names, bytes and ids of tokens; the table of merges
 *   tokenizer_added.c       added tokens in the text, leftmost and longest
 *   tokenizer_normalize.c   NFC
 *   tokenizer_split.c       the pre-tokenizer pattern
 *   tokenizer_bpe.c         merging a word, with a cache of words
 *   tokenizer.c             text to ids and back
 * encoder_tokenizer*.c build the tokenizers of encoder models from some of them. */
#ifndef IO_TOKENIZER_INTERNAL_H
#define IO_TOKENIZER_INTERNAL_H

#include "io/json_value.h"
#include "io/tokenizer.h"

#include <stddef.h>
#include <stdint.h>

/* Ids and ranks stay below 2^21, so that a merge (left, right, rank) packs into 63 bits. */
#define TOKENIZER_ID_BITS 21
#define TOKENIZER_MAX_IDS (1 << TOKENIZER_ID_BITS)
#define NO_RANK           UINT32_MAX
/* One more than the largest code point of the byte alphabet. */
#define TOKENIZER_ALPHABET 0x144

/* --- vocabulary and merges --- */

typedef struct TokenEntry {
    size_t name;          /* offset in names; SIZE_MAX: no token has this id */
    size_t bytes;         /* offset in bytes */
    uint32_t name_length; /* as written in the file, in the byte alphabet */
    uint32_t byte_length; /* what the token decodes to */
} TokenEntry;

typedef struct Vocabulary {
    Text names, bytes;
    TokenEntry *entries;    /* by id; size of them */
    int32_t size, capacity; /* size: one more than the largest id */
    int32_t *slots;         /* open addressing by name, -1 = empty */
    uint64_t slot_mask;
    int64_t count;
    int32_t byte_ids[256];               /* the token of each single byte, -1 = none */
    int16_t byte_of[TOKENIZER_ALPHABET]; /* the byte a code point of the alphabet stands for, -1 = none */
} Vocabulary;

Status vocabulary_reserve(Vocabulary *v, int64_t ids);
/* INVALID when the id is out of range or taken, or the name is there already. literal: the name is the text itself, not
 * written in the byte alphabet. */
Status vocabulary_add(Vocabulary *v, const char *name, size_t length, int64_t id, bool literal);
int32_t vocabulary_find(const Vocabulary *v, const char *name, size_t length); /* -1 when absent */
/* Finds the tokens of the 256 bytes. INVALID names the first byte without one. */
Status vocabulary_find_bytes(Vocabulary *v);
/* Appends bytes in the byte alphabet (GPT-2's bytes_to_unicode). */
Status vocabulary_append_alphabet(Text *out, const char *bytes, size_t length);
void vocabulary_free(Vocabulary *v);

typedef struct MergeRule {
    int32_t left, right, merged;
} MergeRule;

typedef struct MergeTable {
    MergeRule *rules; /* by rank */
    size_t count, capacity;
    uint64_t *slots; /* (left, right, rank) packed, UINT64_MAX = empty */
    int shift;       /* 64 - log2(number of slots) */
    uint64_t mask;
} MergeTable;

/* "left right" as in merges.txt, or in two parts. INVALID when a token is missing from the vocabulary. */
Status merge_table_add(MergeTable *table, const Vocabulary *v, const char *left, size_t left_length, const char *right,
                       size_t right_length, Text *joined);
Status merge_table_add_line(MergeTable *table, const Vocabulary *v, const char *line, size_t length, Text *joined);
Status merge_table_index(MergeTable *table); /* after the last add */
void merge_table_free(MergeTable *table);

static inline uint32_t merge_rank(const MergeTable *table, int32_t left, int32_t right) {
    uint64_t key = (uint64_t)left << TOKENIZER_ID_BITS | (uint64_t)right;
    for (uint64_t i = key * 0x9E3779B97F4A7C15u >> table->shift;; i = (i + 1) & table->mask) {
        uint64_t slot = table->slots[i];
        if (slot >> TOKENIZER_ID_BITS == key) return (uint32_t)(slot & (TOKENIZER_MAX_IDS - 1));
        if (slot == UINT64_MAX) return NO_RANK;
    }
}

/* --- added tokens --- */

typedef struct AddedToken {
    char *content; /* owned; NFC when normalized */
    size_t length;
    int32_t id;
    bool special, normalized;
} AddedToken;

typedef struct AddedTokens {
    AddedToken *tokens; /* sorted by content */
    size_t count, capacity;
    bool starts[256]; /* first bytes of contents */
    int only_start;   /* the first byte when all begin alike, else -1 */
} AddedTokens;

Status added_tokens_add(AddedTokens *set, const char *content, size_t length, int32_t id, bool special, bool normalized);
void added_tokens_index(AddedTokens *set); /* after the last add */
/* The leftmost token in text[from, length), of several there the longest; NULL when there is none. */
const AddedToken *added_tokens_find(const AddedTokens *set, const char *text, size_t length, size_t from, size_t *start);
void added_tokens_free(AddedTokens *set);

/* --- NFC --- */

/* plain: code points below NORMALIZER_LIMIT with combining class 0 that NFC leaves alone whatever stands before them;
 * text may be cut in front of each of them. Everything else takes the long way. */
#define NORMALIZER_LIMIT 0x30000
typedef struct Normalizer {
    uint64_t plain[NORMALIZER_LIMIT / 64];
} Normalizer;

typedef struct NormalizerScratch {
    int32_t *code_points, *sorted;
    size_t capacity, sorted_capacity;
    Text segment, text;
} NormalizerScratch;

void normalizer_init(Normalizer *normalizer);
/* NFC of well-formed UTF-8. *text and *length are left alone when it is NFC already, else lead to scratch->text. */
Status normalizer_run(const Normalizer *normalizer, NormalizerScratch *scratch, const char **text, size_t *length);
void normalizer_scratch_free(NormalizerScratch *scratch);

/* --- pre-tokenizer --- */

extern const char qwen2_pattern[];

typedef struct Splitter {
    char *pattern; /* as in tokenizer.json */
    void *code;    /* pcre2_code; of io/tokenizer_split.c only */
    bool jit;
    bool is_qwen2; /* the pattern is qwen2_pattern: ASCII text takes a hand-written road to the same splits */
} Splitter;

typedef struct SplitterScratch {
    void *match, *context, *stack; /* pcre2_match_data, pcre2_match_context, pcre2_jit_stack */
} SplitterScratch;

/* INVALID when PCRE2 cannot compile the pattern, or it holds an escape that means something else there. */
Status splitter_init(Splitter *splitter, const char *pattern);
void splitter_free(Splitter *splitter);
Status splitter_scratch_init(const Splitter *splitter, SplitterScratch *scratch);
void splitter_scratch_free(SplitterScratch *scratch);
/* End of the piece that begins at start < length: a match of the pattern, or the text before the next match. */
Status splitter_next(const Splitter *splitter, SplitterScratch *scratch, const char *text, size_t length, size_t start,
                     size_t *end);
/* The same by PCRE2 alone. */
Status splitter_next_pcre2(const Splitter *splitter, SplitterScratch *scratch, const char *text, size_t length, size_t start,
                           size_t *end);

/* --- words --- */

typedef struct WordCache WordCache;

typedef struct BpeScratch {
    WordCache *cache;
    int32_t *ids, *previous, *next; /* a long word as a doubly linked list */
    uint64_t *heap;                 /* (rank, position), smallest first */
    size_t capacity, heap_count, heap_capacity;
    Text name; /* a word in the byte alphabet */
} BpeScratch;

Status bpe_scratch_init(BpeScratch *scratch);
void bpe_scratch_free(BpeScratch *scratch);
/* Appends the ids of one word (length > 0). */
Status bpe_encode_word(const Tokenizer *tokenizer, BpeScratch *scratch, const char *word, size_t length, TokenList *out);

/* --- the whole --- */

struct Tokenizer {
    Vocabulary vocabulary; /* the model's tokens; added tokens that the model lacks are entered too */
    int32_t model_size;    /* ids of the model itself: one more than the largest */
    MergeTable merges;
    AddedTokens raw, normalized; /* matched before and after normalisation */
    bool *special;               /* by id */
    Normalizer normalizer;
    bool normalize;
    Splitter splitter;
    bool ignore_merges; /* a word that is a token is that token, whatever the merges say */
    int32_t eos_id;
    char *chat_template;
    char fingerprint[65];
};

/* Parts of loading (tokenizer_load.c), for byte-level tokenizers of every family. joined is scratch; a message names the
 * token, merge or line, not the file. */
Status tokenizer_set_vocabulary(Tokenizer *t, const JsonValue *vocab);            /* {"token": id}; all 256 bytes */
Status tokenizer_set_merges(Tokenizer *t, const JsonValue *merges, Text *joined); /* of tokenizer.json */
Status tokenizer_set_merges_text(Tokenizer *t, const Text *text, Text *joined);   /* of merges.txt */

struct TokenizerScratch {
    NormalizerScratch normalizer;
    SplitterScratch splitter;
    BpeScratch bpe;
};

#endif
