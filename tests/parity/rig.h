/* The network as the training loop holds it, for tests: a session opened from configuration text, passes over samples,
 * whole runs. Everything here calls the program's own code; nothing is computed a second way. */
#ifndef TESTS_PARITY_RIG_H
#define TESTS_PARITY_RIG_H

#include "tests/parity/golden.h"
#include "trainer/plan.h"
#include "trainer/ranks.h"
#include "trainer/session.h"

/* What computes: "cpu", or "cuda" on a GPU (tests/gpu.sh) and on the emulated one (tests/cuda_on_host), which is slow. */
#ifndef PARITY_BACKEND
#define PARITY_BACKEND "cpu"
#endif
#ifdef ADAMEM_CUDA_ON_HOST
#define PARITY_SLOW true
#else
#define PARITY_SLOW false
#endif

/* One per test program: MPI and a scratch directory. */
typedef struct World {
    Ranks ranks;
    char directory[64];
} World;
void world_start(World *world);
/* Removes the scratch directory; returns failed, for main. */
int world_end(World *world, int failed);
/* Path in the scratch directory, valid for the next eight calls. */
const char *world_path(const World *world, const char *format, ...) __attribute__((format(printf, 2, 3)));

typedef struct Rig {
    Options options;
    Session session;
} Rig;

/* Opens a session from configuration text (libconfig). adapter: PEFT directory whose configuration and tensors are used, or
 * NULL. training: gradients and moments are there. */
void rig_open(Rig *rig, World *world, const char *adapter, bool training, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
void rig_close(Rig *rig);

/* What a pass is about; zero values are the defaults. */
typedef struct Pass {
    int64_t first, count; /* samples; count 0: all from first on */
    int64_t label_tokens; /* of the loss; 0: those of all samples */
    int64_t step;         /* dropout key */
    unsigned recompute;   /* Recompute flags */
    bool keep_gradient;   /* add to what is there */
    bool joined;          /* wrong on purpose: attention sees one long sequence */
} Pass;

/* Forward and backward over the samples as one packed batch; gradients are in the store's gradient views. Returns the loss. */
double rig_gradients(Rig *rig, const Samples *samples, Pass pass);
/* Loss without gradient and without dropout. */
double rig_loss(Rig *rig, const Samples *samples, Pass pass);
/* Logits [T,V] of all samples in one packed batch; malloc'd. */
float *rig_logits(Rig *rig, const Samples *samples, Pass pass);
/* A copy of an F32 tensor of the device; malloc'd. */
float *device_copy_of(Device *device, Tensor tensor);
/* Copies of the flat arrays, flat_elements floats. */
float *rig_copy_gradient(const Rig *rig);
float *rig_copy_master(const Rig *rig);
/* The tensor must hold these bits. */
void expect_same_bits(Device *device, Tensor tensor, const float *expected);
/* The packed batch of a pass, for what the above do not offer; packed_batch_free. */
PackedBatch rig_pack(const Samples *samples, Pass pass);

/* Prepares the data of rig's options, plans, trains from the start with train_run, and returns its status. plan: may be
 * NULL. */
Status rig_train(Rig *rig, World *world, Plan *plan);

#endif
