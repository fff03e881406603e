#define _GNU_SOURCE /* process_vm_readv */

#include "dist/launch.h"

#include <mpi.h>

#include <errno.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

/* Containers often forbid process_vm_readv by seccomp; Open MPI 4 notices only in the first large message, and fails. */
static bool cross_memory_attach_works(void) {
    char from = 1, to = 0;
    struct iovec local = {&to, 1}, remote = {&from, 1};
    return process_vm_readv(getpid(), &local, 1, &remote, 1, 0) == 1;
}

/* Settings that a plain start on a minimal machine needs. A value that the user has set stays. */
static void prepare_environment(void) {
    /* Alone, Open MPI 4 starts a daemon (orted), which fails without ssh, without a network interface or without
     * openmpi-bin; it serves only MPI_Comm_spawn, which we never call. Open MPI 5 starts none and ignores the setting. */
    setenv("OMPI_MCA_ess_singleton_isolated", "1", 0);
    /* All programs of a user that are alone like this share one session folder, which the one that ends first deletes while
     * another is about to enter it: one of some hundred starts side by side failed. Only ranks with peers need the folder. */
    if (!getenv("OMPI_COMM_WORLD_SIZE") && !getenv("PMIX_RANK") && !getenv("PMI_RANK"))
        setenv("OMPI_MCA_orte_create_session_dirs", "0", 0);
    /* Both would warn about the absence of network hardware that one machine does not need. */
    setenv("OMPI_MCA_btl_base_warn_component_unused", "0", 0);
    setenv("OMPI_MCA_mca_base_component_show_load_errors", "0", 0);
    if (!cross_memory_attach_works()) {
        setenv("OMPI_MCA_btl_vader_single_copy_mechanism", "none", 0); /* Open MPI 4 */
        setenv("OMPI_MCA_smsc", "^cma", 0);                            /* Open MPI 5 */
    }
    /* Ranks of one host talk through memory, but Open MPI 5 prepares TCP all the same and complains about every external
     * interface that cannot reach itself; the loopback interface always does. */
    const char *world = getenv("OMPI_COMM_WORLD_SIZE"), *local_world = getenv("OMPI_COMM_WORLD_LOCAL_SIZE");
    if (world && local_world && strcmp(world, local_world) == 0 && !getenv("OMPI_MCA_btl_tcp_if_exclude"))
        setenv("OMPI_MCA_btl_tcp_if_include", "127.0.0.1/8", 0);
    if (!getenv("HOME")) { /* Open MPI 5 refuses to start without one: services, cron, env -i */
        const struct passwd *user = getpwuid(getuid());
        setenv("HOME", user && user->pw_dir && *user->pw_dir ? user->pw_dir : "/", 0);
    }
}

/* A launcher that Open MPI does not understand would start N programs that each believe to be alone and overwrite each
 * other's files. Launchers tell their number of tasks in the environment. */
static Status check_not_a_lost_rank(int world) {
    static const char *const variables[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"};
    for (size_t i = 0; world == 1 && i < sizeof variables / sizeof *variables; ++i) {
        const char *value = getenv(variables[i]);
        if (!value) continue;
        if (atoi(value) > 1)
            INVALID("%s is %s, but MPI sees one rank: start with Open MPI's mpirun or with srun --mpi=pmix", variables[i], value);
        return STATUS_OK; /* the innermost launcher has spoken */
    }
    return STATUS_OK;
}

int launch_environment_rank(void) {
    static const char *const variables[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"};
    for (size_t i = 0; i < sizeof variables / sizeof *variables; ++i)
        if (getenv(variables[i])) return atoi(getenv(variables[i]));
    return 0;
}

static Status mpi_status(int code, const char *what) {
    if (code == MPI_SUCCESS) return STATUS_OK;
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    MPI_Error_string(code, text, &length);
    FAIL("%s: %s", what, text);
}

Status launch_start(int *argc, char ***argv, Launch *out) {
    int provided = MPI_THREAD_SINGLE;
    memset(out, 0, sizeof *out);
    prepare_environment();
    TRY(mpi_status(MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread"));
    if (provided < MPI_THREAD_FUNNELED) FAIL("this MPI library cannot work beside threads (MPI_THREAD_FUNNELED)");
    TRY(mpi_status(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler"));
    TRY(mpi_status(MPI_Comm_rank(MPI_COMM_WORLD, &out->rank), "MPI_Comm_rank"));
    TRY(mpi_status(MPI_Comm_size(MPI_COMM_WORLD, &out->world), "MPI_Comm_size"));
    TRY(check_not_a_lost_rank(out->world));

    MPI_Comm host;
    TRY(mpi_status(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, out->rank, MPI_INFO_NULL, &host),
                   "MPI_Comm_split_type"));
    MPI_Comm_rank(host, &out->local_rank);
    MPI_Comm_size(host, &out->local_world);
    TRY(mpi_status(MPI_Comm_free(&host), "MPI_Comm_free"));

    if (gethostname(out->host, sizeof out->host - 1) != 0) FAIL("gethostname: %s", strerror(errno));
    return STATUS_OK;
}

void launch_finish(int exit_status, int all_ranks_alike) {
    int started = 0, ended = 0, world = 1;
    MPI_Initialized(&started);
    MPI_Finalized(&ended);
    /* mpirun ends all ranks when one has failed: let rank 0 tell the error first. */
    if (!started && exit_status != 0 && launch_environment_rank() != 0) sleep(1);
    if (!started || ended) return;
    MPI_Comm_size(MPI_COMM_WORLD, &world);
    /* The others wait in a collective that this rank will never join: only MPI_Abort reaches them. */
    if (exit_status != 0 && !all_ranks_alike && world > 1) MPI_Abort(MPI_COMM_WORLD, exit_status);
    MPI_Finalize();
}
