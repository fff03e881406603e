/* A copy of all that a checkpoint holds, in host memory: training goes on while another thread writes it. */
#ifndef TRAINER_STATE_SNAPSHOT_H
#define TRAINER_STATE_SNAPSHOT_H

#include "trainer/training_state.h"

typedef struct StateSnapshot {
    const char *directory; /* run.output_dir, borrowed */
    int64_t keep;          /* training.save_total_limit */
    bool best;
    bool complete; /* the last take succeeded */
    CheckpointMeta meta;
    float *arrays[3]; /* owned: master, exp_avg, exp_avg_sq, in the parameter store's order */
    CheckpointTensor *tensors;
    int64_t count;
} StateSnapshot;

/* Copies the present state of this rank; memory of an earlier snapshot is used again. */
Status state_snapshot_take(const Session *session, const TrainingState *state, bool best, StateSnapshot *snapshot);
/* Writes DIRECTORY/checkpoint-STEP.h5, points last.h5 (and best.h5) at it, then rotates. Any thread; needs no session. */
Status state_snapshot_write(StateSnapshot *snapshot);
/* Points final.h5, the checkpoint to export, at checkpoint-STEP.h5. */
Status state_snapshot_point_final(const char *directory, int64_t step);
void state_snapshot_free(StateSnapshot *snapshot);

#endif
