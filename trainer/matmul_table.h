/* One table of matmul plans for all ranks and for all parts of a run (kernels/matmul_plans.h).
 *
 * Rank 0 takes the table that the run directory keeps, chooses what it lacks, and sends it to the others. A table made with
 * another GPU or library cannot be used: plans are chosen anew, and the log says that bits may differ. */
#ifndef TRAINER_MATMUL_TABLE_H
#define TRAINER_MATMUL_TABLE_H

#include "trainer/session.h"

/* Collective. Behind the arena, which lends memory for measuring. Does nothing on a backend without a choice. worst: the
 * largest micro-batch of the run. */
Status matmul_table_agree(Session *session, WorstBatch worst);
/* on: the log tells of the next product that the table lacks. */
void matmul_table_watch(Session *session, bool on);
/* Rank 0, when the run directory may be written to: keeps a table that is not there yet. */
Status matmul_table_keep(const Session *session);

#endif
