/* How far a mistyped name is from a valid one, for "the nearest valid name is ...". */
#ifndef IO_EDIT_DISTANCE_H
#define IO_EDIT_DISTANCE_H

/* Levenshtein distance in bytes: insertions, deletions and substitutions that turn a into b. Names longer than 128 bytes
 * count as unlike everything: 1000. */
int edit_distance(const char *a, const char *b);
/* Index of the name nearest to word, the first of equals; -1 when count is 0. Serves lists of sub-commands and options. */
int nearest_name(const char *word, const char *const *names, int count);

#endif
