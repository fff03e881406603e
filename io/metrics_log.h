/* metrics.jsonl (one JSON object per log, evaluation or event) and a TensorBoard event file beside it.
 * TensorBoard: TFRecord framing with masked CRC-32C around Event protocol buffers (tensorflow/core/util/event.proto),
 * scalars only. */
#ifndef IO_METRICS_LOG_H
#define IO_METRICS_LOG_H

#include "io/json_value.h"

typedef struct MetricsLog MetricsLog;

/* Opens DIRECTORY/metrics.jsonl for appending and starts a new event file. After a resume at resume_step (>= 0), earlier
 * lines with a larger "step" are removed first (atomically), so that the file shows one history. -1: start anew, an
 * existing file is kept as metrics.jsonl.N. */
Status metrics_log_open(const char *directory, int64_t resume_step, MetricsLog **out);
/* Writes one line and flushes it; every numeric member except step goes to TensorBoard at that step. Frees object. */
Status metrics_log_write(MetricsLog *log, int64_t step, JsonValue *object);
void metrics_log_close(MetricsLog *log);

#endif
