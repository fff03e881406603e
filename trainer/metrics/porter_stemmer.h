/* Porter's suffix stripping ("An algorithm for suffix stripping", Program 14.3, 1980) in the variant that ROUGE users run:
 * with Martin Porter's later changes and those of NLTK's PorterStemmer (its default mode, version 3.10), which Google's
 * rouge_score calls. NLTK's changes: a pool of irregular words, -ies and -ied of words of four letters give -ie, y becomes
 * i after any consonant but the first letter, -alli once more through step 2, -fulli, -logi, and a stem of a vowel and a
 * consonant counts as short. */
#ifndef TRAINER_METRICS_PORTER_STEMMER_H
#define TRAINER_METRICS_PORTER_STEMMER_H

#include <stddef.h>

/* Stems a word of lower-case letters and digits (digits count as consonants) in place; returns the new length, which is
 * never greater. Words of one and two letters stay as they are. */
size_t porter_stem(char *word, size_t length);

#endif
