/* Learning-rate schedules: pure functions of the number of updates, so that nothing needs restoring on resume. */
#ifndef TRAINER_SCHEDULE_H
#define TRAINER_SCHEDULE_H

#include <stdint.h>

typedef enum ScheduleKind { SCHEDULE_LINEAR, SCHEDULE_COSINE, SCHEDULE_CONSTANT } ScheduleKind;

typedef struct Schedule {
    ScheduleKind kind;
    int64_t warmup_steps, total_steps;
    double min_ratio; /* the factor never falls below this after warm-up */
} Schedule;

/* "linear", "cosine", "constant", "constant_with_warmup". */
ScheduleKind schedule_kind(const char *name);
/* Factor on the peak rate of update s + 1, s >= 0, as transformers.get_scheduler: s/w in warm-up (0 at s = 0), then
 * linear (S-s)/(S-w), cosine 0.5 (1 + cos(pi (s-w)/(S-w))), or 1. */
double schedule_factor(const Schedule *schedule, int64_t s);

#endif
