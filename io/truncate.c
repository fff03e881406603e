#include "io/truncate.h"

#include <limits.h>

static int64_t total_tokens(const TruncatePiece *pieces, size_t count, bool fixed_only) {
    int64_t total = 0;
    for (size_t i = 0; i < count; ++i)
        if (!fixed_only || pieces[i].order == 0) total += pieces[i].tokens;
    return total;
}

/* The smallest order above previous; INT_MAX when there is none. */
static int next_order(const TruncatePiece *pieces, size_t count, int previous) {
    int next = INT_MAX;
    for (size_t i = 0; i < count; ++i)
        if (pieces[i].order > previous && pieces[i].order < next) next = pieces[i].order;
    return next;
}

static int64_t give_up(TruncatePiece *piece, int64_t excess) {
    int64_t removed = piece->whole || piece->tokens < excess ? piece->tokens : excess;
    piece->tokens -= removed;
    return excess - removed;
}

bool truncate_pieces(TruncatePiece *pieces, size_t count, int64_t max_length) {
    if (total_tokens(pieces, count, true) > max_length) return false;
    int64_t excess = total_tokens(pieces, count, false) - max_length;
    for (int order = next_order(pieces, count, 0); excess > 0; order = next_order(pieces, count, order)) {
        for (size_t i = count; i-- > 0;) {
            bool wanted = pieces[i].order == order && (pieces[i].whole || excess > 0);
            if (wanted) excess = give_up(&pieces[i], excess);
        }
    }
    return true;
}
