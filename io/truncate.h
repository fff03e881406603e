/* How a sample that is too long is shortened: in token space, and never in its template.
 *
 * A sample is a sequence of pieces with known token counts. Template and completion have order 0 and are never shortened;
 * the rest is given up in ascending order: pieces that share an order go together, last piece first, either cut at the end
 * (an article keeps its beginning) or removed whole (a dialogue turn). Nothing is decoded and encoded again, so the result
 * cannot grow: it is at most max_length tokens by construction. */
#ifndef IO_TRUNCATE_H
#define IO_TRUNCATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct TruncatePiece {
    int64_t tokens; /* on return: tokens kept, from the beginning of the piece */
    int order;      /* 0 = never shortened */
    bool whole;     /* all pieces of this order are removed together, or none */
} TruncatePiece;

/* Shortens until the sum of tokens is at most max_length; pieces that fit are left alone. Returns false, and changes
 * nothing, when the pieces of order 0 alone do not fit. */
bool truncate_pieces(TruncatePiece *pieces, size_t count, int64_t max_length);

#endif
