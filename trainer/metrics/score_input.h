/* The JSON lines that adamem score reads, as examples for metrics_compute. Fields that no wanted metric needs are not looked
 * at, but for references, which lengths are compared with. */
#ifndef TRAINER_METRICS_SCORE_INPUT_H
#define TRAINER_METRICS_SCORE_INPUT_H

#include "trainer/metrics/metrics.h"

typedef struct ScoreInput {
    MetricExample *examples; /* texts lie in lines */
    JsonValue **lines;
    int64_t count, capacity;
} ScoreInput;

/* needs: METRIC_NEEDS_... of the metrics. A missing field, one of another type, an empty list of references or constraints
 * and a file without lines are STATUS_INVALID naming file, line and field. */
Status score_input_read(const char *path, unsigned needs, ScoreInput *out);
void score_input_free(ScoreInput *input);
/* Whether two files hold the same examples in the same order: as many lines, equal references, constraints, originals and
 * "id"s (where both have them). STATUS_INVALID names the first line that differs. */
Status score_input_check_pair(const char *path, const ScoreInput *input, const char *other_path, const ScoreInput *other);

#endif
