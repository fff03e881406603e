#include "trainer/matmul_table.h"

#include "io/file.h"
#include "io/log.h"
#include "io/plan_file.h"
#include "kernels/matmul_plans.h"
#include "trainer/clock.h"

#include <stdlib.h>
#include <string.h>

/* What rank 0 may spend on measuring algorithms, on products long enough to be worth it: 10 microseconds on an H200. */
#define MEASURING_SECONDS 1.5
#define MEASURED_FLOPS    5e9

static Status table_path(const Session *session, char **out) {
    return path_join(session->run_directory, "matmul_plans.bin", out);
}

/* Takes the run's table where there is one for this library. *found: the file need not be written again if nothing is added. */
static Status take_kept_table(Session *session, const MatmulPlanning *planning, const char *library, bool *found) {
    char *path = NULL, maker[MATMUL_LIBRARY_BYTES];
    Text table;
    *found = false;
    if (!session->run_directory || !session->run_directory[0]) return STATUS_OK;
    TRY(table_path(session, &path));
    if (!file_exists(path)) {
        free(path);
        return STATUS_OK;
    }
    Status status = plan_file_read(path, maker, &table);
    if (!status && strcmp(maker, library) != 0) {
        log_warning("%s was made with %s, this is %s: matmul plans are chosen anew, bits may differ", path, maker, library);
    } else {
        if (!status) status = planning->read_table(session->device, table.data, table.length);
        *found = !status;
        if (status) log_warning("%s; matmul plans are chosen anew, bits may differ", status_message(status));
        status_free(status);
    }
    text_free(&table);
    free(path);
    return STATUS_OK;
}

static Status choose(Session *session, const MatmulPlanning *planning, WorstBatch worst, MatmulCounts *counts) {
    MatmulFamilies families = {0};
    MatmulTiming timing = {session->arena, MEASURING_SECONDS, MEASURED_FLOPS};
    Status status = plan_matmuls(session->options, &session->config, plan_target(session->device), worst, &families);
    if (!status) status = planning->choose(session->device, &families, timing, counts);
    matmul_families_free(&families);
    return status;
}

/* Rank 0: session->matmul_table. */
static Status make_table(Session *session, const MatmulPlanning *planning, WorstBatch worst) {
    char library[MATMUL_LIBRARY_BYTES];
    MatmulCounts counts;
    bool found;
    const double start = clock_seconds();
    planning->library(session->device, library);
    TRY(take_kept_table(session, planning, library, &found));
    TRY(choose(session, planning, worst, &counts));
    session->matmul_table_is_new = !found || counts.chosen > 0;
    log_info("matmul plans: %lld chosen, %lld of them by measuring, in %.1f s%s", (long long)counts.chosen,
             (long long)counts.measured, clock_seconds() - start, found ? "; the run's others are kept" : "");
    return planning->write_table(session->device, &session->matmul_table);
}

/* The others: what rank 0 chose, or, with another library, a choice of their own. */
static Status use_table(Session *session, const MatmulPlanning *planning, WorstBatch worst, const char *rank_0_library) {
    char library[MATMUL_LIBRARY_BYTES];
    MatmulCounts counts;
    if (!planning) return STATUS_OK;
    planning->library(session->device, library);
    if (strcmp(library, rank_0_library) == 0)
        return planning->read_table(session->device, session->matmul_table.data, session->matmul_table.length);
    log_warning("rank %d has %s, rank 0 has %s: bits depend on which rank computes a micro-batch", session->communicator->rank,
                library, rank_0_library[0] ? rank_0_library : "no GPU");
    return choose(session, planning, worst, &counts);
}

/* Collective. */
static Status broadcast_table(Session *session) {
    Communicator *c = session->communicator;
    int64_t length = (int64_t)session->matmul_table.length;
    TRY(c->ops->broadcast(c, &length, sizeof length, 0));
    Status status = c->rank == 0 ? STATUS_OK : text_reserve(&session->matmul_table, (size_t)length + 1);
    TRY(communicator_agree(c, status));
    TRY(c->ops->broadcast(c, session->matmul_table.data, length, 0));
    session->matmul_table.length = (size_t)length;
    return STATUS_OK;
}

Status matmul_table_agree(Session *session, WorstBatch worst) {
    const MatmulPlanning *planning = matmul_planning(session->device);
    Communicator *c = session->communicator;
    char library[MATMUL_LIBRARY_BYTES] = "";
    if (planning && c->rank == 0) planning->library(session->device, library);
    TRY(c->ops->broadcast(c, library, sizeof library, 0));
    int32_t any = planning != NULL;
    TRY(c->ops->max_i32(c, &any, 1));
    if (!any) return STATUS_OK;
    TRY(communicator_agree(c, planning && c->rank == 0 ? make_table(session, planning, worst) : STATUS_OK));
    TRY(broadcast_table(session));
    return communicator_agree(c, c->rank == 0 ? STATUS_OK : use_table(session, planning, worst, library));
}

void matmul_table_watch(Session *session, bool on) {
    const MatmulPlanning *planning = matmul_planning(session->device);
    if (planning && session->matmul_table.length > 0) planning->watch(session->device, on);
}

Status matmul_table_keep(const Session *session) {
    char *path, library[MATMUL_LIBRARY_BYTES];
    if (!session->matmul_table_is_new) return STATUS_OK;
    matmul_planning(session->device)->library(session->device, library);
    TRY(table_path(session, &path));
    Status status = plan_file_write(path, library, session->matmul_table.data, session->matmul_table.length);
    free(path);
    return status;
}
