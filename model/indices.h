/* Index arrays and sequence layouts that live as long as a pass: on the device in the tape's arena, on the host in the tape's
 * host memory. For batches that are put together from the result of other layers, as AdaMem's are. Make them outside of
 * segments: what a segment makes is given back at its end. */
#ifndef MODEL_INDICES_H
#define MODEL_INDICES_H

#include "model/tape.h"

/* count I32 in the tape's host memory, to be filled and given to indices_upload. */
Status indices_allocate(Tape *tape, int64_t count, int32_t **host);
/* The same integers on the device, I32 [count]. */
Status indices_upload(Tape *tape, const int32_t *host, int64_t count, Tensor *out);

/* A layout of `sequences` sequences from offsets [sequences + 1] and positions [offsets[sequences]] in the tape's host memory;
 * positions NULL: 0, 1, 2 ... inside each sequence. Rows have no sample number: dropout would take positions for it. */
Status layout_upload(Tape *tape, int64_t sequences, const int32_t *host_offsets, const int32_t *positions,
                     const SequenceLayout **out);

#endif
