/* Ends a job that hangs: a thread per process that looks whether this rank still makes progress.
 *
 * Progress is a new section or a beat. Without any for run.watchdog_seconds times the section's factor, the process tells what it
 * was doing, one rank tells what all were doing (rank_board.h) and for whom the others wait, and the process ends; so do the
 * others, by their own watchdogs or by the launcher. Neither MPI nor the logger is used for that: they may be what hangs.
 *
 * A second thread keeps this rank's line on the board, and carries requests to stop from rank to rank between collectives.
 *
 * All functions but the first two accept NULL and do nothing: run.watchdog_seconds = 0. */
#ifndef TRAINER_WATCHDOG_H
#define TRAINER_WATCHDOG_H

#include "dist/communicator.h"
#include "dist/launch.h"

/* How much longer than a training step a section may go without progress. */
#define WATCHDOG_STEP       1.0
#define WATCHDOG_FIRST_STEP 10.0 /* kernels are chosen, files are read for the first time */
#define WATCHDOG_LONG       10.0 /* evaluation, saving, loading the model, rehearsal */
#define WATCHDOG_DATA       60.0 /* preparation: one rank may tokenize for hours while the others wait for it */

typedef struct Watchdog Watchdog;

/* launch and communicator must outlive it. seconds 0: *out NULL. */
Status watchdog_start(double seconds, const Launch *launch, const Communicator *communicator, Watchdog **out);
/* Ends the threads. Accepts NULL. */
void watchdog_stop(Watchdog *watchdog);
/* Collective. From now on ranks see each other: run_directory exists. Nothing happens where there is one rank. */
Status watchdog_open_board(Watchdog *watchdog, Communicator *communicator, const char *run_directory);
/* A section begins; name is a literal. */
void watchdog_section(Watchdog *watchdog, const char *name, double factor);
/* A training step begins; the first one is given WATCHDOG_FIRST_STEP at least. */
void watchdog_step(Watchdog *watchdog, int64_t step, double factor);
/* Progress within a section. */
void watchdog_beat(Watchdog *watchdog);

#endif
