/* The checkpoints of a run directory: names, listing, the newest valid one, rotation. */
#include "io/checkpoint.h"

#include "io/buffer.h"
#include "io/checkpoint_format.h"
#include "io/fault.h"
#include "io/file.h"
#include "io/log.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PREFIX "checkpoint-"
#define SUFFIX ".h5"

Status checkpoint_path(const char *directory, int64_t step, char **out) {
    char name[64];
    snprintf(name, sizeof name, PREFIX "%" PRId64 SUFFIX, step);
    return path_join(directory, name, out);
}

/* Only the spelling that checkpoint_path gives: no sign, no leading zeros, nothing after the suffix. */
static bool parse_step(const char *name, int64_t *step) {
    if (strncmp(name, PREFIX, strlen(PREFIX))) return false;
    const char *digits = name + strlen(PREFIX);
    if (*digits < '0' || *digits > '9' || (*digits == '0' && digits[1] >= '0' && digits[1] <= '9')) return false;
    char *end;
    errno = 0;
    *step = strtoll(digits, &end, 10);
    return !errno && !strcmp(end, SUFFIX);
}

static int compare_steps(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static Status collect_steps(DIR *stream, int64_t **steps, int64_t *count) {
    int64_t capacity = 0, step;
    for (struct dirent *entry; (entry = readdir(stream));) {
        if (!parse_step(entry->d_name, &step)) continue;
        if (*count == capacity) {
            capacity = capacity ? 2 * capacity : 64;
            int64_t *grown;
            TRY_ALLOC(grown = realloc(*steps, (size_t)capacity * sizeof **steps));
            *steps = grown;
        }
        (*steps)[(*count)++] = step;
    }
    return STATUS_OK;
}

Status checkpoint_list(const char *directory, int64_t **steps, int64_t *count) {
    *steps = NULL;
    *count = 0;
    DIR *stream = opendir(directory);
    if (!stream && errno == ENOENT) return STATUS_OK;
    if (!stream) INVALID("%s: cannot list: %s", directory, strerror(errno));
    Status status = collect_steps(stream, steps, count);
    closedir(stream);
    if (status) {
        free(*steps);
        *steps = NULL;
        *count = 0;
    }
    if (*count) qsort(*steps, (size_t)*count, sizeof **steps, compare_steps);
    return status;
}

/* Opens or, when out is NULL, only verifies. */
static Status try_checkpoint(const char *directory, int64_t step, Checkpoint **out) {
    char *path;
    TRY(checkpoint_path(directory, step, &path));
    Status status = out ? checkpoint_open(path, out) : checkpoint_verify(path);
    free(path);
    return status;
}

/* Index of the newest valid one, -1 when none. An error of the machine (no memory) is not the file's fault and is passed
 * on: falling back to an older state because of it would silently lose training. */
static Status find_newest_valid(const char *directory, const int64_t *steps, int64_t count, Checkpoint **out, int64_t *index) {
    for (*index = count - 1; *index >= 0; --*index) {
        Status status = try_checkpoint(directory, steps[*index], out);
        if (!status) return STATUS_OK;
        if (status_exit_code(status) != STATUS_INVALID) return status;
        log_warning("passing over a checkpoint: %s", status_message(status));
        status_free(status);
    }
    return STATUS_OK;
}

Status checkpoint_open_newest(const char *directory, Checkpoint **out) {
    *out = NULL;
    int64_t *steps, count, index;
    TRY(checkpoint_list(directory, &steps, &count));
    Status status = find_newest_valid(directory, steps, count, out, &index);
    free(steps);
    return status;
}

static Status delete_file(const char *directory, const char *name) {
    char *path;
    TRY(path_join(directory, name, &path));
    Status status = STATUS_OK;
    if (unlink(path) && errno != ENOENT) status = FAILURE("%s: cannot delete: %s", path, strerror(errno));
    free(path);
    return status;
}

/* A temporary file that is still there after a finished write belonged to a process that was killed. */
static Status delete_temporaries(const char *directory) {
    DIR *stream = opendir(directory);
    if (!stream) INVALID("%s: cannot list: %s", directory, strerror(errno));
    Status status = STATUS_OK;
    for (struct dirent *entry; !status && (entry = readdir(stream));) {
        size_t length = strlen(entry->d_name), suffix = strlen(SUFFIX CHECKPOINT_TEMPORARY_SUFFIX);
        if (length <= suffix || strncmp(entry->d_name, PREFIX, strlen(PREFIX))) continue;
        if (!strcmp(entry->d_name + length - suffix, SUFFIX CHECKPOINT_TEMPORARY_SUFFIX))
            status = delete_file(directory, entry->d_name);
    }
    closedir(stream);
    return status;
}

static Status delete_step(const char *directory, int64_t step) {
    char name[64];
    snprintf(name, sizeof name, PREFIX "%" PRId64 SUFFIX, step);
    return delete_file(directory, name);
}

Status checkpoint_rotate(const char *directory, int64_t keep, int64_t best_step) {
    int64_t *steps, count, newest_valid;
    TRY(checkpoint_list(directory, &steps, &count));
    Status status;
    TRY_GOTO(delete_temporaries(directory), done);
    if (keep <= 0 || count <= keep) goto done;
    TRY_GOTO(find_newest_valid(directory, steps, count, NULL, &newest_valid), done);
    if (newest_valid < 0) goto done; /* nothing here can be trusted to replace another */
    /* The best one counts among those that remain, as in Transformers. */
    int64_t remaining = count;
    for (int64_t i = 0; i < count - 1 && remaining > keep; ++i) {
        if (steps[i] == best_step || i == newest_valid) continue;
        TRY_GOTO(delete_step(directory, steps[i]), done);
        --remaining;
        fault_point("rotation");
    }
done:
    free(steps);
    return status;
}
