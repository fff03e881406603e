#include "trainer/metrics/rouge.h"

#include "trainer/metrics/lcs.h"
#include "trainer/metrics/porter_stemmer.h"
#include "trainer/metrics/word_ids.h"

#include <stdlib.h>
#include <string.h>

/* A text as word ids, line after line. */
typedef struct Words {
    TokenList ids;
    TokenList line_ends; /* for every line: how many ids it and those before it have */
} Words;

struct RougeScorer {
    bool stemmer;
    char letter[256]; /* lower case of a letter or digit, else 0 */
    WordIds vocabulary, pairs;
    Words prediction, reference;
    TokenList prediction_pairs, reference_pairs;
    Text word;
    LcsScratch lcs;
    int32_t *counts[2]; /* [id], all 0 between uses */
    size_t count_capacity;
    bool *in_union; /* [word of the reference] */
    size_t union_capacity;
};

Status rouge_scorer_create(bool stemmer, RougeScorer **out) {
    TRY_ALLOC(*out = calloc(1, sizeof **out));
    (*out)->stemmer = stemmer;
    for (int c = 0; c < 256; ++c) {
        bool upper = c >= 'A' && c <= 'Z';
        if (upper || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')) (*out)->letter[c] = (char)(upper ? c + 'a' - 'A' : c);
    }
    return STATUS_OK;
}

static void words_free(Words *words) {
    token_list_free(&words->ids);
    token_list_free(&words->line_ends);
}

void rouge_scorer_destroy(RougeScorer *s) {
    if (!s) return;
    word_ids_free(&s->vocabulary);
    word_ids_free(&s->pairs);
    words_free(&s->prediction);
    words_free(&s->reference);
    token_list_free(&s->prediction_pairs);
    token_list_free(&s->reference_pairs);
    text_free(&s->word);
    lcs_scratch_free(&s->lcs);
    free(s->counts[0]);
    free(s->counts[1]);
    free(s->in_union);
    free(s);
}

static Status end_word(RougeScorer *s, size_t length, Words *out) {
    int32_t id;
    if (length == 0) return STATUS_OK;
    if (s->stemmer && length > 3) length = porter_stem(s->word.data, length);
    TRY(word_ids_find_or_add(&s->vocabulary, s->word.data, length, &id));
    return token_list_push(&out->ids, id);
}

/* Outside ASCII two characters have lower-case forms with an ASCII letter: U+0130 (i and a dot, which separates) and the
 * kelvin sign U+212A. Returns the bytes taken, 0 for any other character. */
static size_t foreign_letter(const unsigned char *p, size_t left, char *letter) {
    if (left >= 2 && p[0] == 0xC4 && p[1] == 0xB0) return *letter = 'i', 2;
    if (left >= 3 && p[0] == 0xE2 && p[1] == 0x84 && p[2] == 0xAA) return *letter = 'k', 3;
    return 0;
}

static Status cut_words(RougeScorer *s, MetricText text, Words *out) {
    const unsigned char *bytes = (const unsigned char *)text.bytes;
    size_t length = 0;
    token_list_clear(&out->ids);
    token_list_clear(&out->line_ends);
    TRY(text_reserve(&s->word, text.length + 1));
    for (size_t i = 0, taken; i < text.length; i += taken) {
        char letter = s->letter[bytes[i]];
        taken = 1;
        if (bytes[i] >= 0x80) {
            size_t foreign = foreign_letter(bytes + i, text.length - i, &letter);
            if (foreign) taken = foreign;
        }
        if (letter) s->word.data[length++] = letter;
        if (!letter || taken == 2) {
            TRY(end_word(s, length, out));
            length = 0;
        }
        if (bytes[i] == '\n') TRY(token_list_push(&out->line_ends, (int32_t)out->ids.count));
    }
    TRY(end_word(s, length, out));
    return token_list_push(&out->line_ends, (int32_t)out->ids.count);
}

/* Id of every pair of neighbours. */
static Status pair_words(RougeScorer *s, const TokenList *ids, TokenList *out) {
    token_list_clear(out);
    for (size_t i = 0; i + 1 < ids->count; ++i) {
        int32_t id;
        TRY(word_ids_find_or_add(&s->pairs, (const char *)(ids->ids + i), 2 * sizeof *ids->ids, &id));
        TRY(token_list_push(out, id));
    }
    return STATUS_OK;
}

static Status reserve_counts(RougeScorer *s, size_t id_count) {
    if (id_count <= s->count_capacity) return STATUS_OK;
    for (int i = 0; i < 2; ++i) {
        free(s->counts[i]);
        s->count_capacity = 0;
        TRY_ALLOC(s->counts[i] = calloc(2 * id_count, sizeof *s->counts[i]));
    }
    s->count_capacity = 2 * id_count;
    return STATUS_OK;
}

static void count_ids(int32_t *counts, const TokenList *ids) {
    for (size_t i = 0; i < ids->count; ++i) ++counts[ids->ids[i]];
}

static void forget_ids(int32_t *counts, const TokenList *ids) {
    for (size_t i = 0; i < ids->count; ++i) counts[ids->ids[i]] = 0;
}

static RougeScore score_of(size_t hits, size_t prediction_count, size_t reference_count) {
    RougeScore score = {0};
    if (prediction_count) score.precision = (double)hits / (double)prediction_count;
    if (reference_count) score.recall = (double)hits / (double)reference_count;
    if (hits) score.fmeasure = 2 * score.precision * score.recall / (score.precision + score.recall);
    return score;
}

static Status score_overlap(RougeScorer *s, const TokenList *prediction, const TokenList *reference, size_t id_count,
                            RougeScore *out) {
    size_t hits = 0;
    TRY(reserve_counts(s, id_count));
    int32_t *counts = s->counts[0];
    count_ids(counts, prediction);
    for (size_t i = 0; i < reference->count; ++i)
        if (counts[reference->ids[i]] > 0) {
            --counts[reference->ids[i]];
            ++hits;
        }
    forget_ids(counts, prediction);
    *out = score_of(hits, prediction->count, reference->count);
    return STATUS_OK;
}

static Status score_pairs(RougeScorer *s, RougeScore *out) {
    word_ids_clear(&s->pairs);
    TRY(pair_words(s, &s->prediction.ids, &s->prediction_pairs));
    TRY(pair_words(s, &s->reference.ids, &s->reference_pairs));
    return score_overlap(s, &s->prediction_pairs, &s->reference_pairs, s->pairs.count, out);
}

static Status score_subsequence(RougeScorer *s, RougeScore *out) {
    const TokenList *p = &s->prediction.ids, *r = &s->reference.ids;
    size_t length;
    TRY(lcs_length(&s->lcs, r->ids, r->count, p->ids, p->count, s->vocabulary.count, &length));
    *out = score_of(length, p->count, r->count);
    return STATUS_OK;
}

/* Marks the words of one line of the reference that the union over all lines of the prediction holds. */
static Status mark_line(RougeScorer *s, size_t start, size_t end) {
    const Words *p = &s->prediction;
    for (size_t line = 0, from = 0; line < p->line_ends.count; ++line) {
        size_t to = (size_t)p->line_ends.ids[line];
        TRY(lcs_mark(&s->lcs, s->reference.ids.ids + start, end - start, p->ids.ids + from, to - from, s->vocabulary.count,
                     s->in_union + start));
        from = to;
    }
    return STATUS_OK;
}

static Status mark_union(RougeScorer *s) {
    const Words *r = &s->reference;
    if (r->ids.count > s->union_capacity) {
        free(s->in_union);
        s->union_capacity = 0;
        TRY_ALLOC(s->in_union = malloc(2 * r->ids.count * sizeof *s->in_union));
        s->union_capacity = 2 * r->ids.count;
    }
    if (r->ids.count) memset(s->in_union, 0, r->ids.count * sizeof *s->in_union);
    for (size_t line = 0, from = 0; line < r->line_ends.count; ++line) {
        size_t to = (size_t)r->line_ends.ids[line];
        if (to > from) TRY(mark_line(s, from, to));
        from = to;
    }
    return STATUS_OK;
}

static Status score_union(RougeScorer *s, RougeScore *out) {
    const TokenList *p = &s->prediction.ids, *r = &s->reference.ids;
    size_t hits = 0;
    TRY(mark_union(s));
    TRY(reserve_counts(s, s->vocabulary.count));
    count_ids(s->counts[0], p);
    count_ids(s->counts[1], r);
    for (size_t i = 0; i < r->count; ++i) {
        int32_t id = r->ids[i];
        if (!s->in_union[i] || s->counts[0][id] == 0 || s->counts[1][id] == 0) continue;
        --s->counts[0][id];
        --s->counts[1][id];
        ++hits;
    }
    forget_ids(s->counts[0], p);
    forget_ids(s->counts[1], r);
    *out = score_of(hits, p->count, r->count);
    return STATUS_OK;
}

static Status score_kind(RougeScorer *s, RougeKind kind, RougeScore *out) {
    switch (kind) {
    case ROUGE_1: return score_overlap(s, &s->prediction.ids, &s->reference.ids, s->vocabulary.count, out);
    case ROUGE_2: return score_pairs(s, out);
    case ROUGE_L: return score_subsequence(s, out);
    default: return score_union(s, out);
    }
}

Status rouge_score(RougeScorer *s, unsigned kinds, MetricText prediction, const MetricText *references, int64_t reference_count,
                   RougeScore scores[ROUGE_KINDS]) {
    word_ids_clear(&s->vocabulary);
    TRY(cut_words(s, prediction, &s->prediction));
    for (int64_t r = 0; r < reference_count; ++r) {
        TRY(cut_words(s, references[r], &s->reference));
        for (int kind = 0; kind < ROUGE_KINDS; ++kind) {
            RougeScore score;
            if (!(kinds >> kind & 1)) continue;
            TRY(score_kind(s, (RougeKind)kind, &score));
            if (r == 0 || score.fmeasure > scores[kind].fmeasure) scores[kind] = score;
        }
    }
    return STATUS_OK;
}
