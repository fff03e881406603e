/* Map-reduce over all documents of a file, on all ranks. Documents are taken in groups that bound the memory; within a group the
 * chunks of all documents are in one continuous batch, level by level. Neither ranks nor batch size change a result. */
#ifndef TRAINER_SUMMARY_RUN_H
#define TRAINER_SUMMARY_RUN_H

#include "trainer/ranked_generation.h"
#include "trainer/summary/map_reduce.h"
#include "trainer/text_model.h"

typedef struct SummaryRunSettings {
    const char *input; /* JSON lines {"id", "document"}; "-": standard input */
    SummaryStyle style;
    const char *files[SUMMARY_STEPS]; /* NULL: the style's own prompts */
    int64_t chunk_tokens;             /* 0: as many as fit, at most SUMMARY_CHUNK_TOKENS */
    int64_t overlap_tokens;           /* at most half of a chunk; -1: a sixteenth of a chunk */
    int64_t max_new_tokens;           /* as the Generation's */
    int64_t group_tokens;             /* a group is full with as many */
    bool keep_intermediate;
} SummaryRunSettings;
enum { SUMMARY_CHUNK_TOKENS = 2048, SUMMARY_GROUP_TOKENS = 1 << 22 };

typedef struct SummaryTotals {
    int64_t documents, empty, silent; /* silent: an empty summary of a document with text */
    int64_t document_tokens, prompts, levels, new_tokens, cut, unfinished;
    double seconds;
} SummaryTotals;

typedef struct SummaryOutput { /* of rank 0 */
    Text lines;                /* {"id", "summary", ...} in the order of the input */
    Text intermediate;         /* {"id", "level", "chunk", "tokens", "summary", ...} by document, level and chunk */
    SummaryTotals totals;
} SummaryOutput;

/* Collective. STATUS_INVALID: FILE:LINE of a broken record, a prompt file, a model without tokenizer, chunks that do not fit the
 * model's window. */
Status summary_run(const SummaryRunSettings *settings, TextModel *model, Generation *generation, SummaryOutput *out);
void summary_output_free(SummaryOutput *output);

#endif
