/* The files of configs/prompts as constants: they are built into the program (cmake/PromptFiles.cmake), so that it can be
 * moved without them.
 *
 * The newline that ends a file's last line is no part of its text; a prompt that ends in a newline ends in an empty line. */
#ifndef IO_PROMPT_FILES_H
#define IO_PROMPT_FILES_H

#include "io/buffer.h"

/* NUL-terminated UTF-8, named after the file. */
extern const char prompt_memory_summary[];        /* fields {previous_memory}, {recent_turns}, {active_document} */
extern const char prompt_memory_summary_system[]; /* its system message */
extern const char prompt_memory_rules_json[];     /* cue lists and limits of the structured memory */
extern const char prompt_memory_targets_json[];   /* sentences of generated memory summaries */
/* Fields {question}, {answer}, {hypothesis}. */
extern const char prompt_judge_knowledge_edit[];
extern const char prompt_judge_longmemeval[], prompt_judge_longmemeval_temporal[], prompt_judge_longmemeval_update[],
    prompt_judge_longmemeval_preference[], prompt_judge_longmemeval_abstention[];

/* Of adamem summarize; field {document}. */
extern const char prompt_summarize_map[], prompt_summarize_reduce[], prompt_summarize_qwen_sum[];

/* Reads such a file at run time, by the same rule. STATUS_INVALID names the path; NUL bytes and invalid UTF-8 are refused. */
Status prompt_file_read(const char *path, Text *out);

#endif
