/* Names ranks that are slower than the others: all wait for them in every step.
 *
 * Ranks compare their own time per micro-batch, without waiting for each other, over at least STRAGGLER_STEPS steps. They
 * exchange times only at logging steps; nothing is added to the others. */
#ifndef TRAINER_STRAGGLER_H
#define TRAINER_STRAGGLER_H

#include "dist/communicator.h"
#include "dist/launch.h"

#define STRAGGLER_STEPS  20
#define STRAGGLER_FACTOR 1.5
/* The first steps of a process, which choose kernels and fill caches, do not count. */
#define STRAGGLER_SKIPPED 5

typedef struct Straggler {
    const Launch *launch;
    Communicator *communicator;
    int64_t seen, steps; /* of this process; in the window */
    double busy;         /* seconds in the window */
    int64_t micro_batches;
} Straggler;

/* Collective at logging steps (`logging` is the same on all ranks). busy: seconds that this rank computed. A rank whose time is
 * more than STRAGGLER_FACTOR of the median warns with its number and its host. */
Status straggler_step(Straggler *straggler, double busy, int64_t micro_batches, bool logging);

/* The lower median of values, which are sorted; 0 of none. Exported for its test. */
double straggler_median(double *values, int64_t count);

#endif
