/* What a model is asked when it summarizes: one prompt for a chunk of a document (map), one for the summaries of the chunks
 * (reduce). Built in from configs/prompts/summarize_*.txt, or read from files; each holds the field {document} once. */
#ifndef TRAINER_SUMMARY_PROMPTS_H
#define TRAINER_SUMMARY_PROMPTS_H

#include "trainer/summary/chunks.h"

#include <stdbool.h>

typedef enum SummaryStyle {
    SUMMARY_CHAT,     /* the prompt is the one message of a chat */
    SUMMARY_PLAIN,    /* the prompt as it is */
    SUMMARY_QWEN_SUM, /* the prompt of data format cnn_dailymail, as it is, in both steps: adapters know no other */
    SUMMARY_STYLES
} SummaryStyle;
extern const char *const summary_style_names[SUMMARY_STYLES]; /* "chat", "plain", "qwen_sum" */
/* STATUS_INVALID names them. */
Status summary_style_by_name(const char *name, SummaryStyle *out);

typedef enum SummaryStep { SUMMARY_MAP, SUMMARY_REDUCE, SUMMARY_STEPS } SummaryStep;

typedef struct SummaryPrompts {
    const Tokenizer *tokenizer; /* borrowed */
    TokenizerScratch *scratch;
    struct {
        Text before, after; /* the text around the document */
        TokenList before_ids, after_ids;
    } steps[SUMMARY_STEPS];
    Text joined;    /* kept for its memory */
    int64_t tokens; /* of the longer prompt without a document */
} SummaryPrompts;

/* files[step] NULL: the style's own. model: its name for messages. STATUS_INVALID names the file that cannot be read, lacks the
 * field or holds it twice, and a chat template that is not known. After an error nothing is held. */
Status summary_prompts_load(SummaryStyle style, const char *const files[SUMMARY_STEPS], const Tokenizer *tokenizer,
                            TokenizerScratch *scratch, const char *model, SummaryPrompts *out);
void summary_prompts_free(SummaryPrompts *prompts);

/* Appends the ids of the prompt around a chunk: at most prompts->tokens more than the chunk has. They are those of the prompt as
 * one text, as in training. (That could be more only where the chunk's ends fall into words: then the chunk keeps its ids.) */
Status summary_prompt_encode(SummaryPrompts *prompts, SummaryStep step, const TokenText *text, Chunk chunk, TokenList *ids);

#endif
