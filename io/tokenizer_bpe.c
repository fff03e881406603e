/* Byte pair encoding of one word: of all neighbouring pairs the one merged earliest in training is joined first, the
 * leftmost of several, until none is left (Sennrich, Haddow, Birch 2016).
 *
 * Words repeat, so results stay in a cache of fixed size that allocates nothing: one 64-byte line per word, found by hash,
 * replaced on collision. A short word that misses it is merged by scanning; a long one with a heap over a linked list, in
 * O(n log n), since a text without a single space is one word. */
#include "io/tokenizer_internal.h"

#include <stdlib.h>
#include <string.h>

#define CACHE_BITS     15
#define CACHE_IDS      7
#define CACHE_KEY      32
#define SCAN_MAX_BYTES 96

/* A word of at most 32 bytes is its length and up to four overlapping 8-byte loads. */
typedef struct WordKey {
    uint64_t parts[4];
} WordKey;

typedef struct CachedWord {
    WordKey key;
    uint8_t length, count; /* length 0: empty */
    int32_t ids[CACHE_IDS];
} CachedWord;
_Static_assert(sizeof(CachedWord) == 64, "a cached word is one cache line");

struct WordCache {
    CachedWord words[1 << CACHE_BITS];
};

Status bpe_scratch_init(BpeScratch *scratch) {
    *scratch = (BpeScratch){0};
    void *memory;
    if (posix_memalign(&memory, 64, sizeof(WordCache))) FAIL("out of memory: word cache");
    memset(memory, 0, sizeof(WordCache));
    scratch->cache = memory;
    return STATUS_OK;
}

void bpe_scratch_free(BpeScratch *scratch) {
    free(scratch->cache);
    free(scratch->ids);
    free(scratch->previous);
    free(scratch->next);
    free(scratch->heap);
    text_free(&scratch->name);
    *scratch = (BpeScratch){0};
}

static uint64_t load8(const char *p) {
    uint64_t value;
    memcpy(&value, p, 8);
    return value;
}

/* Up to 8 bytes as a number that, with the length, tells words apart. */
static uint64_t load_short(const char *p, size_t length) {
    if (length >= 4) {
        uint32_t low, high;
        memcpy(&low, p, 4);
        memcpy(&high, p + length - 4, 4);
        return low | (uint64_t)high << 32;
    }
    uint64_t first = (unsigned char)p[0], middle = (unsigned char)p[length / 2], last = (unsigned char)p[length - 1];
    return first | middle << 8 | last << 16;
}

static WordKey word_key(const char *word, size_t length) {
    WordKey key = {{0}};
    if (length <= 8) {
        key.parts[0] = load_short(word, length);
        return key;
    }
    key.parts[0] = load8(word);
    key.parts[1] = load8(word + length - 8);
    if (length > 16) {
        key.parts[2] = load8(word + 8);
        key.parts[3] = load8(word + length - 16);
    }
    return key;
}

static CachedWord *cache_line(WordCache *cache, const WordKey *key, size_t length) {
    uint64_t hash = (key->parts[0] + length) * 0x9E3779B97F4A7C15u;
    hash = (hash ^ hash >> 32 ^ key->parts[1]) * 0xD6E8FEB86659FD93u;
    if (length > 16) hash = ((hash ^ hash >> 32) + key->parts[2]) * 0xCF1BBCDCB7A56463u ^ key->parts[3] * 0xA24BAED4963EE407u;
    return &cache->words[(hash ^ hash >> 29) >> (64 - CACHE_BITS)];
}

static bool cache_hit(const CachedWord *line, const WordKey *key, size_t length) {
    if (line->length != length || line->key.parts[0] != key->parts[0] || line->key.parts[1] != key->parts[1]) return false;
    return length <= 16 || (line->key.parts[2] == key->parts[2] && line->key.parts[3] == key->parts[3]);
}

/* Merges in place by scanning for the smallest rank; returns the number of ids left. */
static size_t merge_scanning(const MergeTable *merges, int32_t *ids, size_t count) {
    uint32_t ranks[SCAN_MAX_BYTES];
    for (size_t i = 0; i + 1 < count; ++i) ranks[i] = merge_rank(merges, ids[i], ids[i + 1]);
    while (count > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < count; ++i)
            if (ranks[i] < ranks[best]) best = i;
        if (ranks[best] == NO_RANK) break;
        ids[best] = merges->rules[ranks[best]].merged;
        --count;
        memmove(ids + best + 1, ids + best + 2, (count - best - 1) * sizeof *ids);
        memmove(ranks + best, ranks + best + 1, (count - best) * sizeof *ranks);
        if (best + 1 < count) ranks[best] = merge_rank(merges, ids[best], ids[best + 1]);
        if (best > 0) ranks[best - 1] = merge_rank(merges, ids[best - 1], ids[best]);
    }
    return count;
}

/* --- long words --- */

static Status reserve_long(BpeScratch *s, size_t length) {
    if (length <= s->capacity) return STATUS_OK;
    int32_t *memory;
    s->capacity = 0;
    TRY_ALLOC(memory = realloc(s->ids, length * sizeof *memory));
    s->ids = memory;
    TRY_ALLOC(memory = realloc(s->previous, length * sizeof *memory));
    s->previous = memory;
    TRY_ALLOC(memory = realloc(s->next, length * sizeof *memory));
    s->next = memory;
    s->capacity = length;
    return STATUS_OK;
}

static void sift_down(uint64_t *heap, size_t count, size_t i) {
    uint64_t item = heap[i];
    for (size_t child; (child = 2 * i + 1) < count; i = child) {
        if (child + 1 < count && heap[child + 1] < heap[child]) ++child;
        if (heap[child] >= item) break;
        heap[i] = heap[child];
    }
    heap[i] = item;
}

static Status heap_append(BpeScratch *s, uint64_t item) {
    if (s->heap_count == s->heap_capacity) {
        size_t capacity = s->heap_capacity ? s->heap_capacity * 2 : 1024;
        uint64_t *heap;
        TRY_ALLOC(heap = realloc(s->heap, capacity * sizeof *heap));
        s->heap = heap;
        s->heap_capacity = capacity;
    }
    s->heap[s->heap_count++] = item;
    return STATUS_OK;
}

static Status heap_push(BpeScratch *s, uint64_t item) {
    TRY(heap_append(s, item));
    size_t i = s->heap_count - 1;
    for (; i && s->heap[(i - 1) / 2] > item; i = (i - 1) / 2) s->heap[i] = s->heap[(i - 1) / 2];
    s->heap[i] = item;
    return STATUS_OK;
}

static uint64_t heap_pop(BpeScratch *s) {
    uint64_t top = s->heap[0];
    s->heap[0] = s->heap[--s->heap_count];
    if (s->heap_count) sift_down(s->heap, s->heap_count, 0);
    return top;
}

static uint32_t pair_rank(const MergeTable *merges, const BpeScratch *s, int32_t left) {
    return s->next[left] < 0 ? NO_RANK : merge_rank(merges, s->ids[left], s->ids[s->next[left]]);
}

/* Fills the list with single bytes and the heap with their pairs. */
static Status start_long(const Tokenizer *t, BpeScratch *s, const char *word, size_t length) {
    TRY(reserve_long(s, length));
    for (size_t i = 0; i < length; ++i) {
        s->ids[i] = t->vocabulary.byte_ids[(unsigned char)word[i]];
        s->previous[i] = (int32_t)i - 1;
        s->next[i] = i + 1 < length ? (int32_t)i + 1 : -1;
    }
    s->heap_count = 0;
    for (size_t i = 0; i + 1 < length; ++i) {
        uint32_t rank = pair_rank(&t->merges, s, (int32_t)i);
        if (rank != NO_RANK) TRY(heap_append(s, (uint64_t)rank << 32 | i));
    }
    for (size_t i = s->heap_count / 2; i-- > 0;) sift_down(s->heap, s->heap_count, i);
    return STATUS_OK;
}

/* Joins the pair that begins at left. New pairs go to the heap; outdated ones stay there and are recognised when popped,
 * because the pair that stands at their place then has another rank. */
static Status join_pair(const Tokenizer *t, BpeScratch *s, int32_t left, uint32_t rank) {
    int32_t right = s->next[left], before = s->previous[left];
    s->ids[left] = t->merges.rules[rank].merged;
    s->ids[right] = -1;
    s->next[left] = s->next[right];
    if (s->next[left] >= 0) s->previous[s->next[left]] = left;
    uint32_t after = pair_rank(&t->merges, s, left);
    if (after != NO_RANK) TRY(heap_push(s, (uint64_t)after << 32 | (uint32_t)left));
    if (before < 0) return STATUS_OK;
    uint32_t front = pair_rank(&t->merges, s, before);
    return front == NO_RANK ? STATUS_OK : heap_push(s, (uint64_t)front << 32 | (uint32_t)before);
}

static Status encode_long(const Tokenizer *t, BpeScratch *s, const char *word, size_t length, TokenList *out) {
    if (length > INT32_MAX) INVALID("a word of %zu bytes without a break is too long", length);
    TRY(start_long(t, s, word, length));
    while (s->heap_count) {
        uint64_t item = heap_pop(s);
        int32_t left = (int32_t)(item & UINT32_MAX);
        uint32_t rank = (uint32_t)(item >> 32);
        if (s->ids[left] < 0 || pair_rank(&t->merges, s, left) != rank) continue;
        TRY(join_pair(t, s, left, rank));
    }
    for (int32_t i = 0; i >= 0; i = s->next[i]) TRY(token_list_push(out, s->ids[i]));
    return STATUS_OK;
}

/* --- any word --- */

static Status find_whole(const Tokenizer *t, BpeScratch *s, const char *word, size_t length, int32_t *id) {
    text_clear(&s->name);
    TRY(vocabulary_append_alphabet(&s->name, word, length));
    *id = vocabulary_find(&t->vocabulary, s->name.data, s->name.length);
    if (*id >= t->model_size) *id = -1; /* an added token is no token of the model */
    return STATUS_OK;
}

static Status encode_uncached(const Tokenizer *t, BpeScratch *s, const char *word, size_t length, TokenList *out) {
    if (t->ignore_merges) {
        int32_t id = -1;
        TRY(find_whole(t, s, word, length, &id));
        if (id >= 0) return token_list_push(out, id);
    }
    if (length > SCAN_MAX_BYTES) return encode_long(t, s, word, length, out);
    TRY(token_list_reserve(out, out->count + length));
    int32_t *ids = out->ids + out->count;
    for (size_t i = 0; i < length; ++i) ids[i] = t->vocabulary.byte_ids[(unsigned char)word[i]];
    out->count += merge_scanning(&t->merges, ids, length);
    return STATUS_OK;
}

Status bpe_encode_word(const Tokenizer *t, BpeScratch *s, const char *word, size_t length, TokenList *out) {
    if (length == 1) return token_list_push(out, t->vocabulary.byte_ids[(unsigned char)word[0]]);
    if (length > CACHE_KEY) return encode_uncached(t, s, word, length, out);
    WordKey key = word_key(word, length);
    CachedWord *line = cache_line(s->cache, &key, length);
    if (cache_hit(line, &key, length)) {
        if (out->capacity - out->count < CACHE_IDS) TRY(token_list_reserve(out, out->count + CACHE_IDS));
        memcpy(out->ids + out->count, line->ids, sizeof line->ids);
        out->count += line->count;
        return STATUS_OK;
    }
    size_t start = out->count;
    TRY(encode_uncached(t, s, word, length, out));
    size_t count = out->count - start;
    if (count > CACHE_IDS) return STATUS_OK;
    line->key = key;
    line->length = (uint8_t)length;
    line->count = (uint8_t)count;
    memcpy(line->ids, out->ids + start, count * sizeof *line->ids);
    return STATUS_OK;
}
