#include "io/edit_distance.h"

#include <stddef.h>
#include <string.h>

enum { LONGEST = 128, UNLIKE = 1000 };

static int smaller(int a, int b) { return a < b ? a : b; }

int edit_distance(const char *a, const char *b) {
    size_t m = strlen(a), n = strlen(b);
    if (m > LONGEST || n > LONGEST) return UNLIKE;
    int row[LONGEST + 1]; /* distances of a's first i bytes to every beginning of b */
    for (size_t j = 0; j <= n; ++j) row[j] = (int)j;
    for (size_t i = 1; i <= m; ++i) {
        int diagonal = row[0];
        row[0] = (int)i;
        for (size_t j = 1; j <= n; ++j) {
            int substituted = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            row[j] = smaller(substituted, smaller(row[j], row[j - 1]) + 1);
        }
    }
    return row[n];
}

int nearest_name(const char *word, const char *const *names, int count) {
    int best = -1, smallest = 0;
    for (int i = 0; i < count; ++i) {
        int distance = edit_distance(word, names[i]);
        if (best < 0 || distance < smallest) smallest = distance, best = i;
    }
    return best;
}
