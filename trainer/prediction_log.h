/* What an evaluation during training tells of its predictions. */
#ifndef TRAINER_PREDICTION_LOG_H
#define TRAINER_PREDICTION_LOG_H

#include "io/json_value.h"
#include "trainer/prediction.h"

/* On rank 0. Adds eval_rougeL, ... (means, fractions), eval_gen_len (mean new tokens), eval_generation_runtime,
 * eval_generation_tokens_per_second and "samples": the first three {"index", "prediction", "reference"}, shortened. */
Status prediction_log_fill(const Predictor *predictor, const Predictions *predictions, JsonValue *object);
/* The same for people. */
Status prediction_log_tell(const Predictor *predictor, const Predictions *predictions, int64_t step);

#endif
