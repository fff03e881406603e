/* Output directories that appear whole or not at all, and the files that go along with a model. */
#ifndef TRAINER_DIRECTORY_H
#define TRAINER_DIRECTORY_H

#include "io/json_value.h"

typedef struct NewDirectory {
    char *path, *temporary; /* write into temporary */
} NewDirectory;

/* STATUS_INVALID when path exists and is not an empty directory, or its parent cannot be written to. */
Status new_directory_begin(const char *path, NewDirectory *out);
/* Without an error renames temporary to path; else removes temporary with its files. Returns the first error. */
Status new_directory_end(NewDirectory *directory, Status status);

/* Removes a directory of our own making with all that is in it. */
void directory_remove(const char *path);
/* Writes DIRECTORY/NAME, indented. */
Status directory_write_json(const char *directory, const char *name, const JsonValue *json);

/* Copies the tokenizer's files, those that exist; copy_model_files also generation_config.json. */
Status copy_tokenizer_files(const char *from, const char *to);
Status copy_model_files(const char *from, const char *to);

#endif
