#include "trainer/rank_board.h"

#include "io/buffer.h"
#include "io/file.h"
#include "trainer/directory.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_BYTES 256

struct RankBoard {
    char *directory;
    int rank, world;
};

/* Of the wall clock, which hosts share as well as they can. */
static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

Status rank_board_clear(const char *run_directory) {
    char *directory;
    TRY(path_join(run_directory, "ranks", &directory));
    directory_remove(directory);
    Status status = file_make_directories(directory);
    free(directory);
    return status;
}

Status rank_board_open(const char *run_directory, int rank, int world, RankBoard **out) {
    RankBoard *board;
    TRY_ALLOC(board = calloc(1, sizeof *board));
    *board = (RankBoard){.rank = rank, .world = world};
    Status status = path_join(run_directory, "ranks", &board->directory);
    if (status)
        free(board);
    else
        *out = board;
    return status;
}

static bool path_of(const RankBoard *board, const char *name, char path[PATH_MAX]) {
    return snprintf(path, PATH_MAX, "%s/%s", board->directory, name) < PATH_MAX;
}

static bool rank_path(const RankBoard *board, int rank, char path[PATH_MAX]) {
    char name[32];
    snprintf(name, sizeof name, "rank-%d", rank);
    return path_of(board, name, path);
}

void rank_board_close(RankBoard *board) {
    char path[PATH_MAX];
    if (!board) return;
    if (rank_path(board, board->rank, path)) unlink(path);
    if (board->rank == 0 && path_of(board, "stop", path)) unlink(path);
    rmdir(board->directory);
    free(board->directory);
    free(board);
}

/* Always the same length and in place, so that a reader never finds half a line. */
void rank_board_write(const RankBoard *board, const RankStatus *s) {
    char path[PATH_MAX], line[LINE_BYTES];
    memset(line, ' ', sizeof line);
    int length =
        snprintf(line, sizeof line, "%s %" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 " %.3f %.3f|%s|%s|",
                 s->host[0] ? s->host : "?", s->pid, s->step, s->begun, s->ended, s->idle, now(), s->phase, s->collective);
    if (length < 0 || length >= LINE_BYTES) return;
    line[length] = ' ';
    line[LINE_BYTES - 1] = '\n';
    if (!rank_path(board, board->rank, path)) return;
    int descriptor = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (descriptor < 0) return;
    (void)!pwrite(descriptor, line, sizeof line, 0);
    close(descriptor); /* network file systems show it to others from here on */
}

bool rank_board_read(const RankBoard *board, int rank, RankStatus *out) {
    char path[PATH_MAX], line[LINE_BYTES + 1] = "";
    double written;
    if (!rank_path(board, rank, path)) return false;
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) return false;
    ssize_t count = pread(descriptor, line, LINE_BYTES, 0);
    close(descriptor);
    if (count != LINE_BYTES) return false;
    *out = (RankStatus){.pid = 0};
    int fields = sscanf(line, "%63s %" SCNd64 " %" SCNd64 " %" SCNd64 " %" SCNd64 " %lf %lf|%47[^|]|%31[^|]|", out->host,
                        &out->pid, &out->step, &out->begun, &out->ended, &out->idle, &written, out->phase, out->collective);
    out->age = now() - written;
    return fields == 9;
}

bool rank_board_mark(const RankBoard *board, const char *name) {
    char path[PATH_MAX];
    if (!path_of(board, name, path)) return true;
    int descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (descriptor < 0) return errno != EEXIST;
    close(descriptor);
    return true;
}

bool rank_board_is_marked(const RankBoard *board, const char *name) {
    char path[PATH_MAX];
    return path_of(board, name, path) && access(path, F_OK) == 0;
}
