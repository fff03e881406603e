/* A text that is scored: UTF-8 bytes, borrowed. It may hold NUL bytes: scraped text does. */
#ifndef TRAINER_METRICS_METRIC_TEXT_H
#define TRAINER_METRICS_METRIC_TEXT_H

#include <stddef.h>

typedef struct MetricText {
    const char *bytes; /* not NULL, also when length is 0 */
    size_t length;
} MetricText;

#endif
