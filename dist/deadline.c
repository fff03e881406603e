#include "dist/deadline.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define TEXT_BYTES 1200

struct Deadline {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t cancel;
    bool cancelled;
    struct timespec end;
    int exit_status;
    char text[TEXT_BYTES];
};

/* Neither exit(), whose handlers may wait for what has hung, nor the logger, whose lock the hanging thread may hold, nor
 * MPI_Abort, which only the main thread may call. */
static void end_process(const Deadline *deadline) {
    if (write(STDERR_FILENO, deadline->text, strlen(deadline->text)) < 0) _exit(deadline->exit_status);
    _exit(deadline->exit_status);
}

static void *wait_for_end(void *argument) {
    Deadline *deadline = argument;
    int result = 0;
    pthread_mutex_lock(&deadline->lock);
    while (!deadline->cancelled && result != ETIMEDOUT)
        result = pthread_cond_timedwait(&deadline->cancel, &deadline->lock, &deadline->end);
    bool cancelled = deadline->cancelled;
    pthread_mutex_unlock(&deadline->lock);
    if (!cancelled) end_process(deadline);
    return NULL;
}

static struct timespec seconds_from_now(double seconds) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    long long nanoseconds = time.tv_nsec + (long long)(seconds * 1e9);
    time.tv_sec += (time_t)(nanoseconds / 1000000000);
    time.tv_nsec = (long)(nanoseconds % 1000000000);
    return time;
}

Deadline *deadline_start(double seconds, int exit_status, const char *message) {
    Deadline *deadline = calloc(1, sizeof *deadline);
    if (!deadline) return NULL;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&deadline->cancel, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&deadline->lock, NULL);
    deadline->end = seconds_from_now(seconds);
    deadline->exit_status = exit_status;
    snprintf(deadline->text, sizeof deadline->text, "error: %.*s\n", TEXT_BYTES - 10, message);
    if (pthread_create(&deadline->thread, NULL, wait_for_end, deadline) == 0) return deadline;
    free(deadline);
    return NULL;
}

void deadline_cancel(Deadline *deadline) {
    if (!deadline) return;
    pthread_mutex_lock(&deadline->lock);
    deadline->cancelled = true;
    pthread_cond_signal(&deadline->cancel);
    pthread_mutex_unlock(&deadline->lock);
    pthread_join(deadline->thread, NULL);
    pthread_cond_destroy(&deadline->cancel);
    pthread_mutex_destroy(&deadline->lock);
    free(deadline);
}
