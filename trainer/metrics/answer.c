#include "trainer/metrics/answer.h"

#include "io/unicode.h"
#include "io/utf8.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

void answer_scratch_free(AnswerScratch *s) {
    text_free(&s->lower);
    text_free(&s->prediction);
    text_free(&s->reference);
    word_ids_free(&s->words);
    token_list_free(&s->prediction_ids);
    token_list_free(&s->reference_ids);
    free(s->counts);
    *s = (AnswerScratch){0};
}

static bool is_ascii_punctuation(uint32_t c) {
    return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
}

static size_t remove_punctuation(char *bytes, size_t length) {
    size_t kept = 0;
    for (size_t i = 0; i < length; ++i)
        if (!is_ascii_punctuation((unsigned char)bytes[i])) bytes[kept++] = bytes[i];
    return kept;
}

static bool is_article(const char *word, size_t length) {
    return (length == 1 && word[0] == 'a') || (length == 2 && !memcmp(word, "an", 2)) || (length == 3 && !memcmp(word, "the", 3));
}

/* Bytes of the run of characters at the start that are all letters and digits, or all not (but neither white space). */
static size_t run_length(const char *bytes, size_t length, bool *alphanumeric) {
    size_t at = 0, size;
    for (; at < length; at += size) {
        uint32_t c = utf8_decode((const unsigned char *)bytes + at, &size);
        bool here = unicode_is_alphanumeric(c);
        if (at == 0) *alphanumeric = here;
        if (here != *alphanumeric || unicode_is_space(c)) break;
    }
    return at;
}

/* An article is a run of letters of its own, also when marks stand beside it: it then leaves a space between them. */
Status answer_normalize(Text *lower, MetricText text, Text *out) {
    text_clear(lower);
    TRY(unicode_append_lower(lower, text.bytes, text.length));
    size_t length = remove_punctuation(lower->data, lower->length), start = out->length;
    bool space = false, alphanumeric = false;
    for (size_t at = 0, size; at < length; at += size) {
        size = run_length(lower->data + at, length - at, &alphanumeric);
        if (size == 0) { /* white space */
            (void)utf8_decode((unsigned char *)lower->data + at, &size);
            space = true;
        } else if (alphanumeric && is_article(lower->data + at, size)) {
            space = true;
        } else {
            if (space && out->length > start) TRY(text_append(out, " ", 1));
            TRY(text_append(out, lower->data + at, size));
            space = false;
        }
    }
    return STATUS_OK;
}

static Status word_list(WordIds *words, const Text *text, TokenList *out) {
    token_list_clear(out);
    for (size_t at = 0; at < text->length;) {
        const char *word = text->data + at, *space = memchr(word, ' ', text->length - at);
        size_t length = space ? (size_t)(space - word) : text->length - at;
        int32_t id;
        TRY(word_ids_find_or_add(words, word, length, &id));
        TRY(token_list_push(out, id));
        at += length + 1;
    }
    return STATUS_OK;
}

static Status common_words(AnswerScratch *s, size_t *common) {
    if (s->words.count > s->count_capacity) {
        free(s->counts);
        s->count_capacity = 0;
        TRY_ALLOC(s->counts = calloc(2 * s->words.count, sizeof *s->counts));
        s->count_capacity = 2 * s->words.count;
    }
    *common = 0;
    for (size_t i = 0; i < s->reference_ids.count; ++i) ++s->counts[s->reference_ids.ids[i]];
    for (size_t i = 0; i < s->prediction_ids.count; ++i)
        if (s->counts[s->prediction_ids.ids[i]] > 0) {
            --s->counts[s->prediction_ids.ids[i]];
            ++*common;
        }
    for (size_t i = 0; i < s->reference_ids.count; ++i) s->counts[s->reference_ids.ids[i]] = 0;
    return STATUS_OK;
}

/* s->prediction and s->reference are normalised, s->prediction_ids is made. */
static Status score_reference(AnswerScratch *s, double *f1, double *exact_match) {
    const Text *p = &s->prediction, *r = &s->reference;
    size_t common;
    bool equal = p->length == r->length && (p->length == 0 || !memcmp(p->data, r->data, p->length));
    *exact_match = equal;
    *f1 = equal;
    if (p->length == 0 || r->length == 0) return STATUS_OK;
    TRY(word_list(&s->words, r, &s->reference_ids));
    TRY(common_words(s, &common));
    double precision = (double)common / (double)s->prediction_ids.count;
    double recall = (double)common / (double)s->reference_ids.count;
    *f1 = common ? 2 * precision * recall / (precision + recall) : 0;
    return STATUS_OK;
}

Status answer_score(AnswerScratch *s, MetricText prediction, const MetricText *references, int64_t reference_count, double *f1,
                    double *exact_match) {
    bool answerable = false;
    *f1 = *exact_match = 0;
    word_ids_clear(&s->words);
    text_clear(&s->prediction);
    TRY(answer_normalize(&s->lower, prediction, &s->prediction));
    TRY(word_list(&s->words, &s->prediction, &s->prediction_ids));
    for (int64_t i = 0; i < reference_count; ++i) {
        double reference_f1, reference_match;
        text_clear(&s->reference);
        TRY(answer_normalize(&s->lower, references[i], &s->reference));
        if (s->reference.length == 0) continue;
        answerable = true;
        TRY(score_reference(s, &reference_f1, &reference_match));
        if (reference_f1 > *f1) *f1 = reference_f1;
        if (reference_match > *exact_match) *exact_match = reference_match;
    }
    if (!answerable) *f1 = *exact_match = s->prediction.length == 0;
    return STATUS_OK;
}
