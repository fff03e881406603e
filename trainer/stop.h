/* Requests to stop: SIGTERM and SIGUSR1 (a cluster takes the machine back, a time limit comes), SIGINT (Ctrl-C).
 *
 * A handler can only set a flag, so this flag is process-wide by nature. Any rank may get a signal; what follows from it is
 * decided where all ranks agree: in the collective of each step (gradient_reduction_ask), behind evaluations and between the
 * sections of the start. */
#ifndef TRAINER_STOP_H
#define TRAINER_STOP_H

#include "dist/communicator.h"

/* From here on the signals set the flag; a second SIGINT ends the process at once. Inherited "ignore" stays. */
void stop_listen(void);
/* True when this rank was asked, or has heard that another was. */
bool stop_requested(void);
/* Another rank was asked. Any thread. */
void stop_relay(void);
/* STATUS_STOPPED "stopped on request (SIGTERM) WHEN" when this rank was asked; to be agreed on. */
Status stop_check(const char *when);
/* Collective. stop_check, agreed. */
Status stop_agree(Communicator *communicator, const char *when);

#endif
