/* Checkpoints without waiting: rank 0 copies the state (state_snapshot.h), a thread of its own writes the copy.
 *
 * A save that fails (disk full, quota, a file system gone read-only) is a warning: training goes on, the next save tries again,
 * and what was saved before is untouched. Only the last save of a run must succeed. */
#ifndef TRAINER_SAVER_H
#define TRAINER_SAVER_H

#include "trainer/training_state.h"

typedef struct Saver Saver;

/* session must outlive it. Ranks other than 0 have one too, which does nothing. */
Status saver_create(const Session *session, Saver **out);
/* Waits for a save that is under way. Accepts NULL. */
void saver_destroy(Saver *saver);
/* Begins to write the present state; an earlier save that is still under way is waited for first. */
void saver_save(Saver *saver, const TrainingState *state, bool best);
/* Collective. Waits until the last save is safe on disk; one that failed is tried once more, and is STATUS_FAILED then. */
Status saver_finish(Saver *saver);
/* Seconds for which saves have held up this rank since the last call. */
double saver_take_stall(Saver *saver);

#endif
