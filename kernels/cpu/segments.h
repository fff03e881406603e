/* Which sequence a row of a packed batch belongs to. */
#ifndef KERNELS_CPU_SEGMENTS_H
#define KERNELS_CPU_SEGMENTS_H

#include "kernels/ops.h"

/* Sequences may be empty: the last one that begins at or before the row. */
static inline int64_t sequence_of_row(const SequenceLayout *layout, int64_t row) {
    int64_t low = 0, high = layout->sequences - 1;
    while (low < high) {
        int64_t middle = (low + high + 1) / 2;
        if (layout->host_offsets[middle] <= row)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

#endif
