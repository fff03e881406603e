/* A start for prefix-KV: its keys and values fitted to those that the soft prefix of the same latents leaves in the decoder. */
#ifndef MODEL_PREFIX_KV_FIT_H
#define MODEL_PREFIX_KV_FIT_H

#include "model/adamem.h"

/* Sets the layers of an initialised network with prefix-KV: W_k,l and W_v,l by ridge regression over all latents of the
 * queries, in double: minimise |U W^T - KV|^2 + ridge mean(diagonal of U^T U) |W|^2, U [rows, u]. Returns in *error the
 * relative distance |U W^T - KV| / |KV| over all layers. Begins a pass on the tape. A matrix that cannot be solved
 * (ridge too small, no rows) is STATUS_FAILED. Not while planning. */
Status adamem_fit_prefix_kv(Adamem *adamem, Tape *tape, const AdamemContexts *contexts, const AdamemQueries *queries,
                            double ridge, double *error);

#endif
