/* Which tokens of an answer carry its facts: numbers and names, told from the tokens' text alone.
 *
 * A word is a run of tokens; one begins at a token that starts with white space or punctuation. A word counts as a fact when
 * it holds a digit, when it has two upper-case letters (NATO, McKinsey), or when it begins with one and does not begin a
 * sentence (the answer's first word, or one behind . ! ? or a line break). In scripts without upper case only numbers count. */
#ifndef TRAINER_OBJECTIVES_TOKEN_CLASSES_H
#define TRAINER_OBJECTIVES_TOKEN_CLASSES_H

#include "io/tokenizer.h"

typedef struct TokenClasses TokenClasses;

/* What a token adds to the facts of its answer. */
typedef enum FactToken { FACT_NONE, FACT_FIRST, FACT_INSIDE } FactToken; /* FIRST: the word's first with a letter or digit */

/* Looks at every token's text once. The tokenizer is not needed afterwards. */
Status token_classes_create(const Tokenizer *tokenizer, TokenClasses **out);
void token_classes_destroy(TokenClasses *classes); /* accepts NULL */
/* out[n]. ids: one answer. An id that the tokenizer does not know, or an added token, belongs to no word. */
void token_classes_facts(const TokenClasses *classes, const int32_t *ids, int64_t n, FactToken *out);

#endif
