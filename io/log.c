#include "io/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>

static struct {
    pthread_mutex_t lock;
    LogLevel level;
    int rank, world;
    bool progress_shown;
} logger = {PTHREAD_MUTEX_INITIALIZER, LOG_INFO, 0, 1, false};

void log_set_rank(int rank, int world) {
    logger.rank = rank;
    logger.world = world;
}

int log_rank(void) { return logger.rank; }

void log_set_level(LogLevel level) { logger.level = level; }

static void clear_progress(void) {
    if (logger.progress_shown) fputs("\r\033[K", stderr);
    logger.progress_shown = false;
}

void log_message(LogLevel level, const char *format, ...) {
    if (level < logger.level || (level <= LOG_INFO && logger.rank != 0)) return;
    pthread_mutex_lock(&logger.lock);
    clear_progress();
    if (level >= LOG_WARNING && logger.world > 1) fprintf(stderr, "[rank %d] ", logger.rank);
    if (level == LOG_WARNING) fputs("warning: ", stderr);
    if (level == LOG_ERROR) fputs("error: ", stderr);
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    fflush(stderr);
    pthread_mutex_unlock(&logger.lock);
}

void log_status(Status status) {
    if (!status) return;
    if (status_exit_code(status) == STATUS_STOPPED) { /* what was asked for */
        log_info("%s", status_message(status));
        return;
    }
    log_error("%s", status_message(status));
    log_debug("at %s", status_positions(status));
}

void log_progress(const char *format, ...) {
    if (logger.rank != 0 || logger.level > LOG_INFO || !isatty(STDERR_FILENO)) return;
    pthread_mutex_lock(&logger.lock);
    clear_progress();
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fflush(stderr);
    logger.progress_shown = true;
    pthread_mutex_unlock(&logger.lock);
}

void log_progress_end(void) {
    pthread_mutex_lock(&logger.lock);
    if (logger.progress_shown) fputc('\n', stderr);
    logger.progress_shown = false;
    pthread_mutex_unlock(&logger.lock);
}
