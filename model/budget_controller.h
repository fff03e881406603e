/* The budget controller: logits over adamem_budgets from the query's code and the mean of its memory, W_c c + W_h mean(H) + b. In
 *   training K is drawn by Gumbel noise (Jang et al. 2017) and its derivative is that of the soft choice (straight-through):
 *   with y = softmax((logits + noise) / tau) and the gate of slot k = sum of y_j over budgets K_j > k, which is 1 for the slots
 *   in use. Slots that were not computed have no derivative. */
#ifndef MODEL_BUDGET_CONTROLLER_H
#define MODEL_BUDGET_CONTROLLER_H

#include "model/adamem.h"

typedef struct AdamemBudgetSettings {
    bool explore;           /* draw; else the most likely budget */
    double temperature;     /* tau > 0 of the soft choice */
    uint64_t seed, step;    /* of the noise */
    const int64_t *samples; /* [count] number of each query in the data: the noise does not depend on the batch */
    double cost;            /* the loss gets cost * sum over queries of E[K] / n_latents */
    int64_t most;           /* no more latents than that; 0: n_latents */
} AdamemBudgetSettings;

/* What the controller chose. */
typedef struct AdamemBudget {
    int64_t count;
    int64_t *latents; /* [count] K of each query */
    double *expected; /* [count] E[K] without noise */
    void *state;      /* for adamem_gate */
} AdamemBudget;

/* Chooses for queries whose code has been made (queries->code). When recording, the gradient of the cost is on its way. On a
 * planner: the most. Waits for the device. */
Status adamem_choose(const Adamem *adamem, Tape *tape, const AdamemMemory *memory, const AdamemQueries *queries,
                     AdamemBudgetSettings settings, AdamemBudget *out);
/* Lets what latents' readers say about the chosen slots go back to the controller. To be called when z has been made and before
 * it is read. */
Status adamem_gate(Tape *tape, const AdamemBudget *budget, const AdamemLatents *latents);

#endif
