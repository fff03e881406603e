/* The numbers of a run, worked out before it starts: batches, steps, schedule, memory (CONTRACT.md, "Meaning of the
 * training numbers"). */
#ifndef TRAINER_PLAN_H
#define TRAINER_PLAN_H

#include "io/packed_batch.h"
#include "kernels/matmul_shapes.h"
#include "model/decoder.h"
#include "trainer/network.h"
#include "trainer/options.h"
#include "trainer/schedule.h"

typedef struct Plan {
    int64_t samples, world_size;
    int64_t global_batch_size, accumulation;
    int64_t steps_per_epoch, total_steps;
    Schedule schedule; /* warmup_steps, total_steps, kind, min_ratio */
} Plan;

/* STATUS_INVALID for numbers that contradict each other (names the keys) and for samples == 0. */
Status plan_compute(const Options *options, int64_t samples, int world, Plan *out);

/* Bytes on one rank, by purpose. */
typedef struct PlanMemory {
    int64_t weights;           /* frozen tensors */
    int64_t trainable_weights; /* compute copies of trainable tensors */
    int64_t master, gradient, optimizer, reduction;
    int64_t activations; /* arena peak of one worst-case training step: activations, gradients, scratch */
    int64_t generation;  /* of training.predict_with_generate: the key/value cache */
    int64_t total;
    unsigned recompute; /* Recompute flags that the figure for activations assumes */
} PlanMemory;

/* The worst micro-batch: as many tokens as a micro-batch of these sequences can have. */
typedef struct WorstBatch {
    int64_t sequences, longest, labels_per_sequence;
    int64_t rest; /* tokens of one more, shorter sequence, that the limit on tokens leaves room for; 0: none */
} WorstBatch;

/* Of a configuration whose longest sample has `longest` tokens: plan_worst without a latent memory. */
WorstBatch plan_worst_batch(const TrainingOptions *training, int64_t longest);
/* With one, as many tokens as can be are the decoder's own, for which more is kept than for a context. */
WorstBatch plan_worst(const Options *options, int64_t longest);

/* The device that a plan is for; it need not be there. */
typedef struct PlanTarget {
    BackendKind backend;  /* BACKEND_CPU or BACKEND_CUDA */
    int64_t memory_bytes; /* that such a GPU has; unused on a CPU */
    CudnnPasses cudnn;    /* of attention that cuDNN may run there */
} PlanTarget;

/* Of an open device. */
PlanTarget plan_target(const Device *device);
/* model.attention as an engine. */
AttentionEngine plan_attention(const Options *options);
/* Gives the device that engine; an error names the key. */
Status plan_set_attention(const Options *options, Device *device);

/* The worst batch itself, all its tokens 0; packed_batch_free. */
Status plan_fill_worst_batch(const Options *options, WorstBatch worst, PackedBatch *out);

/* Runs one training step on the planning device. recompute: Recompute flags. */
Status plan_memory(const Options *options, const ModelConfig *config, PlanTarget target, WorstBatch worst, unsigned recompute,
                   PlanMemory *out);
/* training.gradient_checkpointing: none, full (whole layers), or auto: of nothing, swiglu, swiglu and norms, layers the first
 * with which all fits into `available` bytes; layers when none does. */
Status plan_recompute(const Options *options, const ModelConfig *config, PlanTarget target, WorstBatch worst, int64_t available,
                      PlanMemory *out);
/* The matrix products of that step, for matmul plans; none on a CPU. matmul_families_free in any case. */
Status plan_matmuls(const Options *options, const ModelConfig *config, PlanTarget target, WorstBatch worst, MatmulFamilies *out);
const char *plan_recompute_name(unsigned recompute); /* "none", "swiglu", "swiglu and norms", "layers" */

/* The decoder of a configuration on the planning device: names, shapes and counts without weights. options NULL: the bare
 * base model. planned_decoder_close in any case. */
typedef struct PlannedDecoder {
    Device *device;
    Parameters *parameters;
    Network network;
    Decoder *decoder; /* of the network */
} PlannedDecoder;
Status planned_decoder_open(const Options *options, const ModelConfig *config, PlanTarget target, PlannedDecoder *out);
extern const PlanTarget plan_target_cpu; /* also where only names and counts are wanted */
void planned_decoder_close(PlannedDecoder *planned);

/* decoder_create's settings from the options. rules: malloc'd rank rules the settings point to; free after the decoder. */
Status plan_decoder_settings(const Options *options, DecoderSettings *settings, LoraRankRule **rules);
DType plan_dtype(const Options *options);

#endif
