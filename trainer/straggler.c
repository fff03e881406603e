#include "trainer/straggler.h"

#include "io/log.h"

#include <stdlib.h>

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The lower one, so that of two ranks the slower is held against the faster. */
double straggler_median(double *values, int64_t count) {
    if (count == 0) return 0;
    qsort(values, (size_t)count, sizeof *values, compare);
    return values[(count - 1) / 2];
}

/* Ranks without a micro-batch in the window have no time to compare. */
static double median_of_busy(const double *times, int64_t count, double *sorted) {
    int64_t busy = 0;
    for (int64_t i = 0; i < count; ++i)
        if (times[i] > 0) sorted[busy++] = times[i];
    return straggler_median(sorted, busy);
}

/* Collective. */
static Status compare_ranks(const Straggler *s) {
    int64_t world = s->communicator->world;
    double own = s->micro_batches ? s->busy / (double)s->micro_batches : 0, *times;
    TRY_ALLOC(times = calloc(2 * (size_t)world, sizeof *times));
    Status status = s->communicator->ops->all_gather(s->communicator, &own, times, sizeof own);
    double median = status ? 0 : median_of_busy(times, world, times + world);
    if (!status && own > STRAGGLER_FACTOR * median)
        log_warning("rank %d on %s is slow: %.1f times the median rank's time over the last %lld steps; all ranks wait for it",
                    s->communicator->rank, s->launch->host, own / median, (long long)s->steps);
    free(times);
    return status;
}

Status straggler_step(Straggler *s, double busy, int64_t micro_batches, bool logging) {
    if (s->communicator->world == 1) return STATUS_OK;
    if (s->seen++ >= STRAGGLER_SKIPPED) {
        ++s->steps;
        s->busy += busy;
        s->micro_batches += micro_batches;
    }
    if (!logging || s->steps < STRAGGLER_STEPS) return STATUS_OK;
    Status status = compare_ranks(s);
    s->steps = s->micro_batches = 0;
    s->busy = 0;
    return status;
}
