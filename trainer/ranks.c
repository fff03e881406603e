#include "trainer/ranks.h"

#include "io/fault.h"
#include "io/log.h"

Status ranks_start(Ranks *out) {
    *out = (Ranks){0};
    TRY(launch_start(NULL, NULL, &out->launch));
    log_set_rank(out->launch.rank, out->launch.world);
    fault_set_rank(out->launch.rank);
    fault_point("start");
    return communicator_mpi_create(&out->communicator);
}

void ranks_end(Ranks *ranks) { communicator_destroy(ranks->communicator); }
