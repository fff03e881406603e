/* A batch of consecutive lines of one JSON lines file, and their conversion by all threads. */
#ifndef IO_LINE_BATCH_H
#define IO_LINE_BATCH_H

#include "io/data_format.h"
#include "io/json_lines.h"

typedef struct LineBatch {
    Text text;        /* the lines, one after the other */
    size_t *ends;     /* [count] */
    int64_t *numbers; /* [count] line numbers in the file */
    size_t count, capacity;
} LineBatch;
void line_batch_free(LineBatch *batch);

/* Reads lines until max_bytes or max_lines is reached; count 0 at the end of the file. */
Status line_batch_read(JsonLines *reader, size_t max_bytes, size_t max_lines, LineBatch *out);
/* Samples of all lines in order. threads: 0 = as OpenMP would. name: the file, for messages. first_no_label_line: line of
 * the first sample without label, 0 = none. Of several broken lines the first one is reported. */
Status line_batch_convert(const LineBatch *batch, const DataFormat *format, const Tokenizer *tokenizer, const char *name,
                          int threads, SampleList *out, int64_t *first_no_label_line);

#endif
