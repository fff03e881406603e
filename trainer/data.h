/* From the configuration's data group to token data sets: prepared when the cache is missing or stale, else opened. */
#ifndef TRAINER_DATA_H
#define TRAINER_DATA_H

#include "dist/communicator.h"
#include "io/prepare.h"
#include "trainer/data_mixture.h"
#include "trainer/options.h"

/* Collective. Prepares data.train (or data.validation, whose max_length may be evaluation.input_max_length) by all ranks when
 * there is no complete data set for this content, formats, templates, limits and tokenizer. *directory (malloc'd): for
 * token_dataset_open; under data.cache_dir, else run.output_dir/cache, else a private directory for temporary files.
 * tokenizer: may be NULL when all sources are of format tokens. Errors are agreed: every rank returns one. A source "-" is
 * standard input (one rank only), kept in the cache directory while it is prepared. counts: may be NULL. */
Status data_prepare(const Options *options, Tokenizer *tokenizer, Communicator *communicator, bool validation, char **directory,
                    PrepareCounts *counts);

/* How the records of data.train, or of data.validation, become samples; the format itself is each source's own. tokenizer and the
 * strings are borrowed. */
Status data_settings(const Options *options, const Tokenizer *tokenizer, bool validation, DataFormatSettings *out);

/* The view of an opened data.train: weights from the configuration, run.seed. data_mixture_free(&view->mixture) after use. */
Status data_view_create(const Options *options, const TokenDataset *dataset, DataView *out);

#endif
