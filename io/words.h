/* Words and sentences of natural-language text, for rules that compare what people wrote. Pure functions of the bytes: no
 * locale, no state.
 *
 * A word is a run of letters, marks and digits (Unicode categories L, M, N); Chinese characters and Japanese kana are words by
 * themselves. The folded form of a text is its words in lower case with one space around each (" where is it "), so that a
 * phrase is found with strstr and starts a text where it is found at its beginning; a text without words folds to "".
 * An apostrophe inside a word is left out: "Let's" folds to " lets ". */
#ifndef IO_WORDS_H
#define IO_WORDS_H

#include "io/buffer.h"
#include "io/string_list.h"

#include <stdbool.h>

/* Replaces *out by the folded form. bytes must be well-formed UTF-8. */
Status words_fold(const char *bytes, size_t length, Text *out);

/* The next word of a folded form: for (FoldedWord w = {0}; folded_next_word(folded, &w);). Not followed by a NUL. */
typedef struct FoldedWord {
    const char *start;
    size_t length;
} FoldedWord;
bool folded_next_word(const char *folded, FoldedWord *word);
/* Whether the word is one of those of a folded form. */
bool folded_contains(const char *folded, FoldedWord word);

/* Share of the different words of `sought` that stand in `text` (both folded): 0 to 1. Words of `ignored` do not count, unless
 * there are no others. 0 when sought has no words. */
double folded_overlap(const char *sought, const char *text, const char *ignored);

/* Replaces *out by the text with every run of white space and control characters as one space and none at the ends, cut after
 * maximum_words runs of other characters (0: not cut). */
Status words_squeeze(const char *bytes, size_t length, size_t maximum_words, Text *out);

/* Appends the sentences of the text, squeezed; those without a word are left out. A line end ends a sentence; so do . ! ? and
 * the ellipsis with the marks and closing quotes behind them where white space follows, and the full-width marks anywhere. A
 * full stop does not when it follows a single capital letter other than I, a number that starts the sentence, or a word of
 * `abbreviations` (each folded by itself: " mr ", " e g "). */
Status sentences_split(const char *bytes, size_t length, const StringList *abbreviations, StringList *out);
/* Where those sentences end: behind their marks, in bytes of the text. */
typedef struct SentenceEnd {
    size_t at;
    bool line; /* only the end of a line or of the text ended it */
} SentenceEnd;
typedef struct SentenceEnds {
    SentenceEnd *items; /* [count], ascending */
    size_t count, capacity;
} SentenceEnds;
Status sentences_find_ends(const char *bytes, size_t length, const StringList *abbreviations, SentenceEnds *out);
void sentence_ends_free(SentenceEnds *ends);
/* Whether a question mark is among the marks that end the sentence. */
bool sentence_is_question(const char *sentence);

#endif
