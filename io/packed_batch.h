/* One micro-batch as the model wants it: sequences laid end to end, no padding, with the rows whose logits are needed.
 *
 * labels[i] belongs to input_ids[i] and is predicted by row i-1 of the same sequence; a label at position 0 of a sequence
 * has no predecessor and never counts. Shapes: T tokens, S sequences, M labels that count. */
#ifndef IO_PACKED_BATCH_H
#define IO_PACKED_BATCH_H

#include "io/status.h"

#include <stdint.h>

typedef struct PackedBatch {
    int64_t tokens, sequences; /* T, S */
    int64_t longest;           /* tokens of the longest sequence */
    int64_t label_count;       /* M */
    int32_t *input_ids;        /* [T] */
    int32_t *positions;        /* [T] restart at 0 in every sequence */
    int32_t *offsets;          /* [S+1] cu_seqlens */
    int32_t *sample_of_token;  /* [T] number of the sequence, 0..S-1 */
    int64_t *samples;          /* [S] sample number in the data set: keys dropout */
    int32_t *contexts;         /* [S] tokens that each begins with which are marked LABEL_CONTEXT */
    int32_t *label_rows;       /* [M] rows that predict, strictly increasing */
    int32_t *label_ids;        /* [M] what they must predict */
} PackedBatch;

/* input_ids, labels: [T] sequences end to end, cut by ends [S] (ascending, ends[S-1] = T). samples: [S]. Copies all of
 * them; free with packed_batch_free. Zero-length sequences and T > 2^31-1 are STATUS_INVALID. */
Status packed_batch_build(const int32_t *input_ids, const int32_t *labels, const int64_t *ends, const int64_t *samples,
                          int64_t sequences, PackedBatch *out);
void packed_batch_free(PackedBatch *batch);

#endif
