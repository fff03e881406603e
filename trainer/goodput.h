/* Goodput: seconds in steps that survived, of all seconds that the run's processes lived.
 *
 * OUTPUT_DIR/goodput.json carries the sums from one start to the next: steps behind the checkpoint from which a start goes on are
 * lost, the seconds of the process that was killed are not forgotten. Time between processes, when nobody had the machine, does
 * not count. Rank 0 only; what cannot be kept is left out with nothing but a worse figure's loss. */
#ifndef TRAINER_GOODPUT_H
#define TRAINER_GOODPUT_H

#include "io/status.h"

#include <stdbool.h>
#include <stdint.h>

/* Checkpoints whose seconds are remembered: a resume goes on from one of the newest. */
#define GOODPUT_MARKS 64

typedef struct GoodputMark {
    int64_t step;
    double step_seconds; /* in steps up to it */
} GoodputMark;

typedef struct Goodput {
    const char *directory; /* run.output_dir, borrowed */
    double started;        /* clock_seconds() of this process */
    double earlier;        /* seconds of the processes before */
    double step_seconds;   /* of all steps up to now that survived */
    int64_t starts;
    GoodputMark marks[GOODPUT_MARKS];
    int count;
} Goodput;

/* step: the one from which this process goes on; 0 begins anew. Call before metrics.jsonl is opened, whose time tells how long
 * the process before lived. */
Status goodput_open(const char *directory, double started, int64_t step, Goodput *out);
void goodput_add_step(Goodput *goodput, double seconds);
/* A checkpoint of this step was begun, or the process ends. A failure is a warning. */
void goodput_keep(Goodput *goodput, int64_t step);
/* The share, 0 to 1. */
double goodput_share(const Goodput *goodput);
/* "goodput 98.7 %: ..." */
void goodput_print(const Goodput *goodput);

#endif
