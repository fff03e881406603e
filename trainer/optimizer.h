/* The optimizer step over the flat arrays of the parameter store: norm, clip, AdamW by parameter group. */
#ifndef TRAINER_OPTIMIZER_H
#define TRAINER_OPTIMIZER_H

#include "model/parameters.h"
#include "trainer/options.h"

typedef struct Optimizer Optimizer;

/* Forms runs of neighbouring tensors with the same learning rate and decay: biases and norms get none, a tensor matched by
 * a rule of training.parameter_groups (searched in its name, the first match counts) gets that rule's. A rule that matches
 * nothing is STATUS_INVALID. */
Status optimizer_create(const Options *options, Parameters *parameters, Arena *scratch, Optimizer **out);
void optimizer_destroy(Optimizer *optimizer);
/* L2 norm of the whole gradient. */
Status optimizer_grad_norm(Optimizer *optimizer, double *norm);
/* Update number `update` (1-based). factor: of the schedule, on every group's rate. grad_norm: gradients are scaled by
 * max_grad_norm / (grad_norm + 1e-6) where that is < 1, as torch.nn.utils.clip_grad_norm_. */
Status optimizer_step(Optimizer *optimizer, int64_t update, double factor, double grad_norm);

#endif
