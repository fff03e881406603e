#include "trainer/watchdog.h"

#include "dist/deadline.h"
#include "trainer/clock.h"
#include "trainer/rank_board.h"
#include "trainer/stop.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* For the report, which reads files that may be what hangs. */
#define REPORT_SECONDS 3.0
#define MOST_CULPRITS  8

struct Watchdog {
    double seconds, tick;
    const Launch *launch;
    const Communicator *communicator;
    RankBoard *board; /* NULL: one rank, or too early */
    pthread_t timer, keeper;
    bool timed, kept; /* these threads run */
    pthread_mutex_t lock;
    pthread_cond_t ending;
    bool end;
    _Atomic(const char *) section;
    _Atomic double factor, progress; /* progress: clock_seconds of the last one */
    _Atomic int64_t step;
};

static double idle_seconds(const Watchdog *w) { return clock_seconds() - atomic_load(&w->progress); }

static void describe_self(const Watchdog *w, RankStatus *out) {
    const CommunicatorActivity *activity = &w->communicator->activity;
    const char *collective = atomic_load(&activity->collective);
    *out = (RankStatus){.pid = getpid(),
                        .step = atomic_load(&w->step),
                        .begun = atomic_load(&activity->begun),
                        .ended = atomic_load(&activity->ended),
                        .idle = idle_seconds(w)};
    snprintf(out->host, sizeof out->host, "%.63s", w->launch->host);
    snprintf(out->phase, sizeof out->phase, "%s", atomic_load(&w->section));
    snprintf(out->collective, sizeof out->collective, "%s", collective ? collective : "none");
}

/* In one piece, past the logger. */
__attribute__((format(printf, 1, 2))) static void tell(const char *format, ...) {
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    size_t size = length < (int)sizeof text ? (size_t)length : sizeof text - 1;
    (void)!write(STDERR_FILENO, text, size);
}

static bool inside_collective(const RankStatus *s) { return s->begun > s->ended; }

/* Its board keeper writes every tick while the process lives. */
static bool gone_quiet(const Watchdog *w, const RankStatus *s) { return s->age > 3 * w->tick + 1; }

static void tell_rank(const Watchdog *w, int rank, const RankStatus *s) {
    char life[64] = "";
    if (gone_quiet(w, s)) snprintf(life, sizeof life, ", no sign of life for %.1f s", s->age);
    tell("  rank %d (%s, process %lld): %s, step %lld, %.1f s without progress, %s %s (number %lld)%s\n", rank, s->host,
         (long long)s->pid, s->phase, (long long)s->step, s->idle + s->age, inside_collective(s) ? "inside" : "last collective",
         s->collective, (long long)s->begun, life);
}

typedef struct Culprits {
    int ranks[MOST_CULPRITS];
    char phases[MOST_CULPRITS][48];
    int count;
} Culprits;

static void add_culprit(Culprits *culprits, int rank, const char *phase) {
    if (culprits->count == MOST_CULPRITS) return;
    culprits->ranks[culprits->count] = rank;
    snprintf(culprits->phases[culprits->count++], sizeof culprits->phases[0], "%s", phase);
}

static void tell_culprits(const Culprits *culprits, const char *why) {
    for (int i = 0; i < culprits->count; ++i)
        tell("watchdog: the others wait for rank %d, in section %s: %s\n", culprits->ranks[i], culprits->phases[i], why);
}

/* Who does not answer is at fault; else who has not come to the collective in which others wait. */
static void report_all(const Watchdog *w) {
    Culprits quiet = {.count = 0}, late = {.count = 0};
    int waiting = 0;
    for (int rank = 0; rank < w->launch->world; ++rank) {
        RankStatus status;
        if (rank == w->launch->rank) {
            describe_self(w, &status);
        } else if (!rank_board_read(w->board, rank, &status)) {
            tell("  rank %d: nothing is known\n", rank);
            add_culprit(&quiet, rank, "unknown");
            continue;
        }
        tell_rank(w, rank, &status);
        waiting += inside_collective(&status);
        if (gone_quiet(w, &status))
            add_culprit(&quiet, rank, status.phase);
        else if (!inside_collective(&status))
            add_culprit(&late, rank, status.phase);
    }
    if (quiet.count)
        tell_culprits(&quiet, "stopped, dead, or its host cannot be reached");
    else if (waiting)
        tell_culprits(&late, "it has not come to the collective in which they wait");
}

static void expire(const Watchdog *w) {
    char last_words[160];
    RankStatus own;
    describe_self(w, &own);
    tell(
        "watchdog: rank %d made no progress for %.1f s (run.watchdog_seconds = %g): section %s, step %lld, %s %s; the job ends\n",
        w->launch->rank, own.idle, w->seconds, own.phase, (long long)own.step,
        inside_collective(&own) ? "inside the collective" : "last collective", own.collective);
    snprintf(last_words, sizeof last_words, "watchdog: rank %d ends, the report is incomplete", w->launch->rank);
    (void)deadline_start(REPORT_SECONDS, STATUS_FAILED, last_words);
    if (w->board && rank_board_mark(w->board, "abort")) report_all(w);
    _exit(STATUS_FAILED); /* what hangs would hang exit() too; the launcher ends the others */
}

/* Sleeps a tick. False: the end. */
static bool wait_tick(Watchdog *w) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    long long nanoseconds = time.tv_nsec + (long long)(w->tick * 1e9);
    time.tv_sec += (time_t)(nanoseconds / 1000000000);
    time.tv_nsec = (long)(nanoseconds % 1000000000);
    int result = 0;
    pthread_mutex_lock(&w->lock);
    while (!w->end && result != ETIMEDOUT) result = pthread_cond_timedwait(&w->ending, &w->lock, &time);
    bool end = w->end;
    pthread_mutex_unlock(&w->lock);
    return !end;
}

static void *watch(void *argument) {
    Watchdog *w = argument;
    while (wait_tick(w))
        if (idle_seconds(w) > w->seconds * atomic_load(&w->factor)) expire(w);
    return NULL;
}

static void *keep_board(void *argument) {
    Watchdog *w = argument;
    bool told = false;
    do {
        RankStatus status;
        describe_self(w, &status);
        rank_board_write(w->board, &status);
        if (stop_requested() && !told) {
            (void)rank_board_mark(w->board, "stop");
            told = true;
        } else if (!told && rank_board_is_marked(w->board, "stop")) {
            stop_relay();
            told = true;
        }
    } while (wait_tick(w));
    return NULL;
}

Status watchdog_start(double seconds, const Launch *launch, const Communicator *communicator, Watchdog **out) {
    Watchdog *w;
    *out = NULL;
    if (seconds <= 0) return STATUS_OK;
    TRY_ALLOC(w = calloc(1, sizeof *w));
    *w = (Watchdog){.seconds = seconds, .tick = seconds / 20, .launch = launch, .communicator = communicator};
    if (w->tick > 2) w->tick = 2;
    atomic_store(&w->step, -1);
    watchdog_section(w, "start", WATCHDOG_LONG);
    pthread_mutex_init(&w->lock, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&w->ending, &attributes);
    pthread_condattr_destroy(&attributes);
    w->timed = pthread_create(&w->timer, NULL, watch, w) == 0;
    if (!w->timed) {
        watchdog_stop(w);
        FAIL("cannot start the watchdog's thread");
    }
    *out = w;
    return STATUS_OK;
}

void watchdog_stop(Watchdog *w) {
    if (!w) return;
    pthread_mutex_lock(&w->lock);
    w->end = true;
    pthread_cond_broadcast(&w->ending);
    pthread_mutex_unlock(&w->lock);
    if (w->timed) pthread_join(w->timer, NULL);
    if (w->kept) pthread_join(w->keeper, NULL);
    rank_board_close(w->board);
    pthread_cond_destroy(&w->ending);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

static Status start_keeper(Watchdog *w, const char *run_directory) {
    TRY(rank_board_open(run_directory, w->launch->rank, w->launch->world, &w->board));
    w->kept = pthread_create(&w->keeper, NULL, keep_board, w) == 0;
    if (!w->kept) FAIL("cannot start the watchdog's second thread");
    return STATUS_OK;
}

Status watchdog_open_board(Watchdog *w, Communicator *communicator, const char *run_directory) {
    if (!w || w->launch->world == 1) return STATUS_OK;
    Status status = w->launch->rank == 0 ? rank_board_clear(run_directory) : STATUS_OK;
    TRY(communicator_agree(communicator, status));
    return communicator_agree(communicator, start_keeper(w, run_directory));
}

void watchdog_section(Watchdog *w, const char *name, double factor) {
    if (!w) return;
    atomic_store(&w->section, name);
    /* Progress first: the new limit must not be held against the old section's time. */
    atomic_store(&w->progress, clock_seconds());
    atomic_store(&w->factor, factor);
}

void watchdog_step(Watchdog *w, int64_t step, double factor) {
    if (!w) return;
    bool first = atomic_exchange(&w->step, step) < 0;
    watchdog_section(w, "training", first && factor < WATCHDOG_FIRST_STEP ? WATCHDOG_FIRST_STEP : factor);
}

void watchdog_beat(Watchdog *w) {
    if (w) atomic_store(&w->progress, clock_seconds());
}
