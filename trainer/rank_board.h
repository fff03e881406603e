/* What every rank is doing, where every rank can read it without the others' help: small files in the run directory.
 *
 * MPI cannot answer for a rank that hangs. A board is for reports and hints only: it may be late by the file system's caches, and
 * lines may be missing. No function fails; what cannot be written or read is not there. */
#ifndef TRAINER_RANK_BOARD_H
#define TRAINER_RANK_BOARD_H

#include "io/status.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct RankStatus {
    char host[64], phase[48], collective[32]; /* collective: the last one begun, "none" */
    int64_t pid, step, begun, ended;          /* collectives; step -1: before the first */
    double idle;                              /* seconds without progress, when this was written */
    double age;                               /* seconds since this was written, when it was read */
} RankStatus;

typedef struct RankBoard RankBoard;

/* Rank 0, before the others open it: makes RUN_DIRECTORY/ranks, without what a killed run left there. */
Status rank_board_clear(const char *run_directory);
Status rank_board_open(const char *run_directory, int rank, int world, RankBoard **out);
/* Takes this rank's line down, and the folder with the last one. Accepts NULL. */
void rank_board_close(RankBoard *board);
void rank_board_write(const RankBoard *board, const RankStatus *status);
bool rank_board_read(const RankBoard *board, int rank, RankStatus *out);
/* A mark that all ranks can see. True for the rank that was first; also where nothing can be written. */
bool rank_board_mark(const RankBoard *board, const char *name);
bool rank_board_is_marked(const RankBoard *board, const char *name);

#endif
