/* The input of adamem generate: lines {"prompt"}, {"messages"} or {"input_ids"} become token ids. */
#ifndef TRAINER_PROMPT_LINES_H
#define TRAINER_PROMPT_LINES_H

#include "trainer/ranked_generation.h"
#include "trainer/text_model.h"

typedef struct PromptLines {
    PromptList prompts;
    int64_t *numbers; /* [prompts.count] line numbers in the file */
    int64_t capacity;
} PromptLines;

/* Reads and tokenizes the whole file ("-": standard input). longest: most tokens of a prompt. A broken line is STATUS_INVALID
 * naming file and line; so are prompts that are too long, of which the first is named and all are counted. */
Status prompt_lines_read(const char *path, const TextModel *model, int64_t longest, PromptLines *out);
void prompt_lines_free(PromptLines *lines);

#endif
