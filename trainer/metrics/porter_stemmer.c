#include "trainer/metrics/porter_stemmer.h"

#include <stdbool.h>
#include <string.h>

/* The word while it is stemmed: it only ever shrinks, or has as many letters replaced as removed. */
typedef struct Word {
    char *letters;
    size_t length;
} Word;

typedef bool (*Condition)(const char *stem, size_t length);

typedef struct Rule {
    const char *suffix, *replacement;
    Condition condition; /* on what is left of the suffix; NULL: always */
} Rule;

static bool is_aeiou(char c) { return c == 'a' || c == 'e' || c == 'i' || c == 'o' || c == 'u'; }

/* y is a consonant at the start and after a vowel, where a y is judged by the same rule. */
static bool is_consonant(const char *word, size_t i) {
    if (is_aeiou(word[i])) return false;
    bool negate = false;
    for (; i > 0 && word[i] == 'y'; --i) negate = !negate;
    return !is_aeiou(word[i]) != negate;
}

/* m of the paper: how often a vowel is followed by a consonant. */
static size_t measure(const char *word, size_t length) {
    size_t m = 0;
    bool previous = true;
    for (size_t i = 0; i < length; ++i) {
        bool consonant = word[i] == 'y' ? i == 0 || !previous : !is_aeiou(word[i]);
        m += i > 0 && !previous && consonant;
        previous = consonant;
    }
    return m;
}

static bool contains_vowel(const char *word, size_t length) {
    for (size_t i = 0; i < length; ++i)
        if (is_aeiou(word[i]) || (word[i] == 'y' && i > 0)) return true; /* the first y of a run behind a consonant is one */
    return false;
}

static bool positive_measure(const char *stem, size_t length) { return measure(stem, length) > 0; }
static bool measure_above_one(const char *stem, size_t length) { return measure(stem, length) > 1; }

static bool ends_double_consonant(const char *word, size_t length) {
    return length >= 2 && word[length - 1] == word[length - 2] && is_consonant(word, length - 1);
}

/* *o of the paper, and NLTK's addition for two letters. */
static bool ends_cvc(const char *word, size_t length) {
    if (length == 2) return !is_consonant(word, 0) && is_consonant(word, 1);
    if (length < 3) return false;
    char last = word[length - 1];
    return is_consonant(word, length - 3) && !is_consonant(word, length - 2) && is_consonant(word, length - 1) && last != 'w' &&
           last != 'x' && last != 'y';
}

static bool ends_with(const Word *word, const char *suffix) {
    size_t length = strlen(suffix);
    return word->length >= length && !memcmp(word->letters + word->length - length, suffix, length);
}

static void replace(Word *word, const char *suffix, const char *replacement) {
    size_t length = strlen(replacement);
    word->length -= strlen(suffix);
    memcpy(word->letters + word->length, replacement, length);
    word->length += length;
}

/* The first rule whose suffix is there decides, also when its condition then fails. */
static void apply(Word *word, const Rule *rules) {
    for (; rules->suffix; ++rules)
        if (ends_with(word, rules->suffix)) {
            size_t stem = word->length - strlen(rules->suffix);
            if (!rules->condition || rules->condition(word->letters, stem)) replace(word, rules->suffix, rules->replacement);
            return;
        }
}

static void step_1a(Word *word) {
    static const Rule rules[] = {{"sses", "ss", NULL}, {"ies", "i", NULL}, {"ss", "ss", NULL}, {"s", "", NULL}, {0}};
    if (word->length == 4 && ends_with(word, "ies"))
        replace(word, "ies", "ie");
    else
        apply(word, rules);
}

/* What -ed and -ing leave behind is made a word again. */
static void mend(Word *word) {
    static const Rule rules[] = {{"at", "ate", NULL}, {"bl", "ble", NULL}, {"iz", "ize", NULL}, {0}};
    size_t before = word->length;
    apply(word, rules);
    if (word->length != before) return;
    char last = word->letters[word->length - 1];
    if (ends_double_consonant(word->letters, word->length)) {
        if (last != 'l' && last != 's' && last != 'z') --word->length;
    } else if (measure(word->letters, word->length) == 1 && ends_cvc(word->letters, word->length)) {
        replace(word, "", "e");
    }
}

static void step_1b(Word *word) {
    static const char *const suffixes[] = {"ed", "ing"};
    if (ends_with(word, "ied")) {
        replace(word, "ied", word->length == 4 ? "ie" : "i");
        return;
    }
    if (ends_with(word, "eed")) {
        if (positive_measure(word->letters, word->length - 3)) --word->length;
        return;
    }
    for (int i = 0; i < 2; ++i)
        if (ends_with(word, suffixes[i]) && contains_vowel(word->letters, word->length - strlen(suffixes[i]))) {
            replace(word, suffixes[i], "");
            mend(word);
            return;
        }
}

static void step_1c(Word *word) {
    if (ends_with(word, "y") && word->length > 2 && is_consonant(word->letters, word->length - 2)) replace(word, "y", "i");
}

static bool positive_measure_with_l(const char *stem, size_t length) { return measure(stem, length + 1) > 0; }

static void step_2(Word *word) {
    static const Rule rules[] = {{"ational", "ate", positive_measure},
                                 {"tional", "tion", positive_measure},
                                 {"enci", "ence", positive_measure},
                                 {"anci", "ance", positive_measure},
                                 {"izer", "ize", positive_measure},
                                 {"bli", "ble", positive_measure},
                                 {"alli", "al", positive_measure},
                                 {"entli", "ent", positive_measure},
                                 {"eli", "e", positive_measure},
                                 {"ousli", "ous", positive_measure},
                                 {"ization", "ize", positive_measure},
                                 {"ation", "ate", positive_measure},
                                 {"ator", "ate", positive_measure},
                                 {"alism", "al", positive_measure},
                                 {"iveness", "ive", positive_measure},
                                 {"fulness", "ful", positive_measure},
                                 {"ousness", "ous", positive_measure},
                                 {"aliti", "al", positive_measure},
                                 {"iviti", "ive", positive_measure},
                                 {"biliti", "ble", positive_measure},
                                 {"fulli", "ful", positive_measure},
                                 {"logi", "log", positive_measure_with_l},
                                 {0}};
    bool again = ends_with(word, "alli") && positive_measure(word->letters, word->length - 4);
    if (again) replace(word, "alli", "al"); /* conditionalli, conditional, condition */
    apply(word, rules);
}

static void step_3(Word *word) {
    static const Rule rules[] = {{"icate", "ic", positive_measure}, {"ative", "", positive_measure},
                                 {"alize", "al", positive_measure}, {"iciti", "ic", positive_measure},
                                 {"ical", "ic", positive_measure},  {"ful", "", positive_measure},
                                 {"ness", "", positive_measure},    {0}};
    apply(word, rules);
}

static bool ion_may_go(const char *stem, size_t length) {
    return measure(stem, length) > 1 && (stem[length - 1] == 's' || stem[length - 1] == 't');
}

static void step_4(Word *word) {
    static const Rule rules[] = {{"al", "", measure_above_one},    {"ance", "", measure_above_one},
                                 {"ence", "", measure_above_one},  {"er", "", measure_above_one},
                                 {"ic", "", measure_above_one},    {"able", "", measure_above_one},
                                 {"ible", "", measure_above_one},  {"ant", "", measure_above_one},
                                 {"ement", "", measure_above_one}, {"ment", "", measure_above_one},
                                 {"ent", "", measure_above_one},   {"ion", "", ion_may_go},
                                 {"ou", "", measure_above_one},    {"ism", "", measure_above_one},
                                 {"ate", "", measure_above_one},   {"iti", "", measure_above_one},
                                 {"ous", "", measure_above_one},   {"ive", "", measure_above_one},
                                 {"ize", "", measure_above_one},   {0}};
    apply(word, rules);
}

static void step_5(Word *word) {
    if (ends_with(word, "e")) {
        size_t m = measure(word->letters, word->length - 1);
        if (m > 1 || (m == 1 && !ends_cvc(word->letters, word->length - 1))) --word->length;
    }
    if (ends_with(word, "ll") && measure(word->letters, word->length - 1) > 1) --word->length;
}

static bool irregular(Word *word) {
    static const char *const forms[][2] = {
        {"sky", "sky"},        {"skies", "sky"},       {"dying", "die"},        {"lying", "lie"},
        {"tying", "tie"},      {"news", "news"},       {"innings", "inning"},   {"inning", "inning"},
        {"outings", "outing"}, {"outing", "outing"},   {"cannings", "canning"}, {"canning", "canning"},
        {"howe", "howe"},      {"proceed", "proceed"}, {"exceed", "exceed"},    {"succeed", "succeed"}};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; ++i)
        if (strlen(forms[i][0]) == word->length && !memcmp(word->letters, forms[i][0], word->length)) {
            word->length = strlen(forms[i][1]);
            memcpy(word->letters, forms[i][1], word->length);
            return true;
        }
    return false;
}

size_t porter_stem(char *letters, size_t length) {
    Word word = {letters, length};
    if (length <= 2 || irregular(&word)) return word.length;
    step_1a(&word);
    step_1b(&word);
    step_1c(&word);
    step_2(&word);
    step_3(&word);
    step_4(&word);
    step_5(&word);
    return word.length;
}
