/* Output directories that appear whole or not at all, and the files that go along with a model. */
#ifndef TRAINER_DIRECTORY_H
#define TRAINER_DIRECTORY_H

#include "io/status.h"

typedef struct NewDirectory {
    char *path, *temporary; /* write into temporary */
} NewDirectory;

/* STATUS_INVALID when path exists and is not an empty directory, or its parent cannot be written to. */
Status new_directory_begin(const char *path, NewDirectory *out);
/* Without an error renames temporary to path; else removes temporary with its files. Returns the first error. */
Status new_directory_end(NewDirectory *directory, Status status);

/* Copies tokenizer and generation files of a model directory, those that exist. */
Status copy_model_files(const char *from, const char *to);

#endif
