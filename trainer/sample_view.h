/* Samples for people to read, with the label mask visible. */
#ifndef TRAINER_SAMPLE_VIEW_H
#define TRAINER_SAMPLE_VIEW_H

#include "io/dataset.h"
#include "io/tokenizer.h"

/* Appends a heading and the sample as text; what is trained is green when `colour`, else between « and ». Without a
 * tokenizer (NULL) ids are shown. A label at position 0 is never trained and not shown as such. */
Status sample_view_append(TokenDataset *dataset, int64_t sample, const char *name, const Tokenizer *tokenizer, bool colour,
                          Text *out);

#endif
