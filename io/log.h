/* Messages for people, on standard error.
 *
 * Process-wide by nature (there is one standard error); the rank is set once at start. Information is printed by
 * rank 0 only, warnings and errors by every rank with its number. Results never go through here: they belong on
 * standard output. */
#ifndef IO_LOG_H
#define IO_LOG_H

#include "io/status.h"

typedef enum LogLevel { LOG_DEBUG, LOG_INFO, LOG_WARNING, LOG_ERROR } LogLevel;

/* rank, world: shown before warnings and errors when world > 1. */
void log_set_rank(int rank, int world);
int log_rank(void);
void log_set_level(LogLevel level);
void log_message(LogLevel level, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Prints "error: MESSAGE" (of a stop on request MESSAGE, by rank 0) and, at debug level, the source positions. */
void log_status(Status status);
/* A line that overwrites itself when standard error is a terminal; printed nowhere else. Rank 0 only. */
void log_progress(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Ends the progress line so that later messages start on a fresh one. */
void log_progress_end(void);

#define log_info(...)    log_message(LOG_INFO, __VA_ARGS__)
#define log_warning(...) log_message(LOG_WARNING, __VA_ARGS__)
#define log_error(...)   log_message(LOG_ERROR, __VA_ARGS__)
#define log_debug(...)   log_message(LOG_DEBUG, __VA_ARGS__)

#endif
