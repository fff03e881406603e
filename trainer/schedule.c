#include "trainer/schedule.h"

#include <math.h>
#include <string.h>

ScheduleKind schedule_kind(const char *name) {
    if (strcmp(name, "cosine") == 0) return SCHEDULE_COSINE;
    return strcmp(name, "linear") == 0 ? SCHEDULE_LINEAR : SCHEDULE_CONSTANT;
}

double schedule_factor(const Schedule *schedule, int64_t s) {
    int64_t w = schedule->warmup_steps, total = schedule->total_steps;
    if (s < w) return (double)s / (double)w;
    if (schedule->kind == SCHEDULE_CONSTANT) return 1.0;
    if (s >= total) return schedule->min_ratio;
    double progress = (double)(s - w) / (double)(total - w);
    double factor = schedule->kind == SCHEDULE_LINEAR ? 1.0 - progress : 0.5 * (1.0 + cos(3.14159265358979323846 * progress));
    return schedule->min_ratio + (1.0 - schedule->min_ratio) * factor;
}
