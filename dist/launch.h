/* Who am I: ranks as started by mpirun, srun (pmix) or alone. The only place that starts and ends MPI. */
#ifndef DIST_LAUNCH_H
#define DIST_LAUNCH_H

#include "io/status.h"

typedef struct Launch {
    int rank, world;             /* in the job */
    int local_rank, local_world; /* on this host */
    char host[256];
} Launch;

/* The rank that the launcher's environment gives this process; 0 without a launcher. For errors before launch_start, which
 * only one rank should tell. */
int launch_environment_rank(void);
/* Collective. Starts MPI (MPI_THREAD_FUNNELED or better) and finds the ranks on this host. A plain start is one rank; it
 * must also work where MPI has no launcher at all (singleton). The process environment gets a few OMPI_MCA_ settings,
 * and HOME where it is missing, never over the user's own (launch.c argues each). STATUS_INVALID when the launcher is one that
 * Open MPI does not understand (srun without --mpi=pmix): N programs would each believe to be alone. */
Status launch_start(int *argc, char ***argv, Launch *out);
/* Collective. Call on every rank before exit, with the exit status: a rank that failed alone takes the others down by
 * MPI_Abort(exit_status) instead of leaving them waiting. all_ranks_alike: every rank has this same result. Also works where
 * launch_start was not called. */
void launch_finish(int exit_status, int all_ranks_alike);

#endif
