/* The prompt of session memory for inference. It is rendered, tokenized and shortened by the code that makes training samples
 * of format memory, from the one template (configs/prompts/memory_summary.txt, or data.prompt_template): an adapter is asked
 * in exactly the bytes that it was trained on. */
#ifndef IO_MEMORY_PROMPT_H
#define IO_MEMORY_PROMPT_H

#include "io/data_format.h"

typedef struct MemoryPrompt {
    Text text;      /* ChatML with the generation prompt, before shortening */
    TokenList ids;  /* at most max_length of the format's settings */
    bool shortened; /* oldest turns, then document, previous memory, newest turn were given up; never the template */
} MemoryPrompt;

/* format: created for "memory". record: {previous_memory, recent_turns, active_document}; a summary is not looked at.
 * STATUS_INVALID names the field, or says that the template alone is too long; out is then empty. */
Status memory_prompt_encode(const DataFormat *format, TokenizerScratch *scratch, const JsonValue *record, MemoryPrompt *out);
void memory_prompt_free(MemoryPrompt *prompt);

#endif
