#include "io/checkpoint.h"
#include "io/file.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static Status make_previous(const char *directory, Text *out) {
    for (int n = 1; n < 100000; ++n) {
        text_clear(out);
        TRY(text_append_format(out, "%s/previous-%d", directory, n));
        if (mkdir(out->data, 0777) == 0) return STATUS_OK;
        if (errno != EEXIST) FAIL("%s: cannot make the directory: %s", out->data, strerror(errno));
    }
    FAIL("%s: too many previous runs", directory);
}

/* A missing file (a link that was never made) is fine. */
static Status move(const char *directory, const char *name, const char *target) {
    char *from = NULL, *to = NULL;
    Status status = path_join(directory, name, &from);
    if (!status) status = path_join(target, name, &to);
    if (!status && rename(from, to) != 0 && errno != ENOENT)
        status = FAILURE("%s: cannot move to %s: %s", from, to, strerror(errno));
    free(from);
    free(to);
    return status;
}

Status checkpoint_set_aside(const char *directory) {
    int64_t *steps, count;
    Text target = {0};
    TRY(checkpoint_list(directory, &steps, &count));
    Status status = count > 0 ? make_previous(directory, &target) : STATUS_OK;
    static const char *const links[] = {"best.h5", "last.h5", "final.h5"};
    for (size_t i = 0; i < sizeof links / sizeof *links && count > 0 && !status; ++i)
        status = move(directory, links[i], target.data);
    for (int64_t i = 0; i < count && !status; ++i) {
        char name[64];
        snprintf(name, sizeof name, "checkpoint-%" PRId64 ".h5", steps[i]);
        status = move(directory, name, target.data);
    }
    text_free(&target);
    free(steps);
    return status;
}
