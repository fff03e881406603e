/* What the sub-commands that run on several ranks share: start, one copy of the options, agreement on errors. */
#ifndef TRAINER_RANKS_H
#define TRAINER_RANKS_H

#include "dist/communicator.h"
#include "dist/launch.h"

/* How long a rank that failed while it computed waits for the others, which may have much to compute yet. With the launcher's
 * time to end them, a lost GPU ends the job within 10 s. */
#define FAILED_RANK_SECONDS 7.0

typedef struct Ranks {
    Launch launch;
    Communicator *communicator;
} Ranks;

/* Collective. Starts MPI and tells the logger this rank's number. */
Status ranks_start(Ranks *out);
/* Collective. Ends the communicator; main ends MPI. */
void ranks_end(Ranks *ranks);
static inline Status ranks_agree(const Ranks *ranks, Status status) { return communicator_agree(ranks->communicator, status); }

#endif
