/* One training sample as text, cut into pieces that know whether they are trained and how they may be shortened; and its
 * way into tokens.
 *
 * Tokenization units: text that is tokenized at once. A sample that fits is tokenized unit by unit, so that its ids are those
 * an inference program gets for the same prompt. A sample that is too long is measured piece by piece, shortened in token
 * space (io/truncate.h), and what stays whole is tokenized together again; an article that is cut contributes the first of
 * its own ids. */
#ifndef IO_SAMPLE_TEXT_H
#define IO_SAMPLE_TEXT_H

#include "io/example_list.h"
#include "io/sample_list.h"
#include "io/tokenizer.h"

typedef struct SamplePiece {
    size_t start, end; /* bytes in SampleText.text */
    bool label;        /* its tokens are trained */
    bool new_unit;     /* a tokenization unit starts here */
    int order;         /* as in TruncatePiece: 0 = never shortened */
    bool whole;
} SamplePiece;

typedef struct SampleText {
    Text text;
    SamplePiece *pieces; /* in text order */
    size_t count, capacity;
    bool append_eos; /* the EOS token ends the sample and is trained */
} SampleText;

void sample_text_clear(SampleText *sample); /* memory is kept */
void sample_text_free(SampleText *sample);
/* Adds a piece that covers bytes already in sample->text. */
Status sample_text_mark(SampleText *sample, SamplePiece piece);
/* Appends bytes and a piece that covers them; start and end of `piece` are ignored. */
Status sample_text_append(SampleText *sample, const char *bytes, size_t length, SamplePiece piece);

/* Tokenizes and adds the sample to out, or counts there why it was dropped. Without `truncate` a sample longer than
 * max_length is STATUS_INVALID. The first token that reaches into a labelled piece is a label, also where it began before
 * it (content that starts with a line break after "assistant\n"). */
Status sample_text_encode(const SampleText *sample, const Tokenizer *tokenizer, TokenizerScratch *scratch, int64_t max_length,
                          bool truncate, SampleList *out);
/* For inference: removes the last labelled stretch of text (of a chat: the last answer) and all behind it. False, and nothing
 * removed, when nothing is labelled. */
bool sample_text_keep_prompt(SampleText *sample);
/* Appends the ids of a sample that is a prompt alone: those that its training begins with. Nothing where *fit says that there
 * are none; without `truncate` nothing is cut. */
Status sample_text_fit_prompt(const SampleText *sample, const Tokenizer *tokenizer, TokenizerScratch *scratch, int64_t max_length,
                              bool truncate, TokenList *ids, PromptFit *fit);
/* Both at once. *shortened: it did not fit as it was. STATUS_INVALID if the template alone exceeds max_length, or if `truncate`
 * is false and something had to go. */
Status sample_text_encode_prompt(SampleText *sample, const Tokenizer *tokenizer, TokenizerScratch *scratch, int64_t max_length,
                                 bool truncate, TokenList *ids, bool *shortened);

#endif
