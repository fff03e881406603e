/* Longest common subsequences of id sequences, 64 columns of the table at a time (bit-parallel: Crochemore et al. 2001,
 * Hyyro 2004). A bit of a row is 0 where the table steps up from one column to the next. */
#ifndef TRAINER_METRICS_LCS_H
#define TRAINER_METRICS_LCS_H

#include "io/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Zero-initialise; memory is kept from call to call. */
typedef struct LcsScratch {
    uint64_t *masks; /* [id]: where the id stands in the current 64 columns; all 0 between calls */
    size_t mask_capacity;
    unsigned char *carries; /* [row]: carry into the next 64 columns */
    size_t carry_capacity;
    uint64_t *rows; /* [row][word of 64 columns] */
    size_t row_capacity;
} LcsScratch;

/* Length of a longest common subsequence of a[a_count] and b[b_count], whose ids are 0 <= id < id_count. */
Status lcs_length(LcsScratch *scratch, const int32_t *a, size_t a_count, const int32_t *b, size_t b_count, size_t id_count,
                  size_t *length);
/* Sets in_lcs[i] for the elements of a that belong to one such subsequence: the one that going back through the table from
 * its end finds by taking every match, and without one moving in b only where that alone keeps the length (the choice of
 * rouge_score, on which the union of several depends). Other elements of in_lcs stay as they are. */
Status lcs_mark(LcsScratch *scratch, const int32_t *a, size_t a_count, const int32_t *b, size_t b_count, size_t id_count,
                bool *in_lcs);
void lcs_scratch_free(LcsScratch *scratch);

#endif
