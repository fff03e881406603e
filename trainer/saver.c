#include "trainer/saver.h"

#include "io/log.h"
#include "trainer/clock.h"
#include "trainer/state_snapshot.h"

#include <pthread.h>
#include <stdlib.h>

struct Saver {
    const Session *session;
    StateSnapshot snapshot; /* the thread's while it runs */
    pthread_t thread;
    bool running;
    bool failed; /* the last save; read when the thread has ended */
    double stall;
};

Status saver_create(const Session *session, Saver **out) {
    Saver *saver;
    TRY_ALLOC(saver = calloc(1, sizeof *saver));
    saver->session = session;
    *out = saver;
    return STATUS_OK;
}

static void wait_for_thread(Saver *saver) {
    if (saver->running) pthread_join(saver->thread, NULL);
    saver->running = false;
}

void saver_destroy(Saver *saver) {
    if (!saver) return;
    wait_for_thread(saver);
    state_snapshot_free(&saver->snapshot);
    free(saver);
}

static void warn(const Saver *saver, Status status) {
    log_warning("step %lld was not saved: %s; training goes on, the next save tries again, earlier checkpoints are untouched",
                (long long)saver->snapshot.meta.step, status_message(status));
}

static void *write_snapshot(void *argument) {
    Saver *saver = argument;
    Status status = state_snapshot_write(&saver->snapshot);
    if (status) warn(saver, status);
    saver->failed = status != STATUS_OK;
    status_free(status);
    return NULL;
}

void saver_save(Saver *saver, const TrainingState *state, bool best) {
    if (saver->session->communicator->rank != 0) return;
    double start = clock_seconds();
    wait_for_thread(saver);
    Status status = state_snapshot_take(saver->session, state, best, &saver->snapshot);
    saver->failed = status != STATUS_OK;
    if (status) {
        saver->snapshot.meta.step = state->step;
        warn(saver, status);
        status_free(status);
    } else {
        saver->running = pthread_create(&saver->thread, NULL, write_snapshot, saver) == 0;
        if (!saver->running) write_snapshot(saver); /* without a thread it takes its time */
    }
    saver->stall += clock_seconds() - start;
}

/* The last chance. Whatever is wrong with the directory, no configuration is: the exit status is that of a failure. */
static Status finish_on_rank_0(Saver *saver) {
    wait_for_thread(saver);
    if (!saver->failed) return STATUS_OK;
    Status status = saver->snapshot.complete ? state_snapshot_write(&saver->snapshot) : FAILURE("there is no copy to write");
    saver->failed = status != STATUS_OK;
    if (!status) return STATUS_OK;
    Status final = FAILURE("the last checkpoint, of step %lld, could not be saved: %s", (long long)saver->snapshot.meta.step,
                           status_message(status));
    status_free(status);
    return final;
}

Status saver_finish(Saver *saver) {
    Communicator *communicator = saver->session->communicator;
    return communicator_agree(communicator, communicator->rank == 0 ? finish_on_rank_0(saver) : STATUS_OK);
}

double saver_take_stall(Saver *saver) {
    double stall = saver->stall;
    saver->stall = 0;
    return stall;
}
