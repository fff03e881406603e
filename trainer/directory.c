#define _GNU_SOURCE /* nftw */
#include "trainer/directory.h"

#include "io/file.h"

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

Status new_directory_begin(const char *path, NewDirectory *out) {
    *out = (NewDirectory){0};
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/') --length;
    if (length == 0) INVALID("--output is empty");
    char *name;
    TRY_ALLOC(name = strndup(path, length));
    if (file_exists(name) && rmdir(name) != 0) { /* an empty directory may be replaced */
        Status status = INVALID_INPUT("%s: already exists; choose another output or remove it", name);
        free(name);
        return status;
    }
    char *temporary = malloc(length + 32);
    if (!temporary) {
        free(name);
        FAIL("out of memory: output directory");
    }
    snprintf(temporary, length + 32, "%s.tmp-%ld", name, (long)getpid());
    Status status = file_make_directories(temporary);
    if (status) {
        free(name);
        free(temporary);
        return status;
    }
    *out = (NewDirectory){name, temporary};
    return STATUS_OK;
}

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *walk) {
    (void)info;
    (void)type;
    (void)walk;
    remove(path); /* what cannot be removed stays; there is nobody to tell */
    return 0;
}

void directory_remove(const char *path) { nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT); }

Status new_directory_end(NewDirectory *directory, Status status) {
    if (!status && rename(directory->temporary, directory->path) != 0)
        status = FAILURE("%s: cannot rename to %s: %s", directory->temporary, directory->path, strerror(errno));
    if (status) directory_remove(directory->temporary);
    free(directory->path);
    free(directory->temporary);
    *directory = (NewDirectory){0};
    return status;
}

static Status copy_file(const char *from, const char *to, const char *name) {
    char *source, *target = NULL;
    Text bytes = {0};
    TRY(path_join(from, name, &source));
    Status status = STATUS_OK;
    if (file_exists(source)) {
        status = file_read(source, &bytes);
        if (!status) status = path_join(to, name, &target);
        if (!status) status = file_write_atomic(target, bytes.data, bytes.length);
    }
    text_free(&bytes);
    free(source);
    free(target);
    return status;
}

Status copy_tokenizer_files(const char *from, const char *to) {
    static const char *const names[] = {
        "tokenizer.json", "tokenizer.json.gz", "tokenizer_config.json", "vocab.json",
        "merges.txt",     "added_tokens.json", "chat_template.jinja",   "special_tokens_map.json"};
    for (size_t i = 0; i < sizeof names / sizeof *names; ++i) TRY(copy_file(from, to, names[i]));
    return STATUS_OK;
}

Status copy_model_files(const char *from, const char *to) {
    TRY(copy_tokenizer_files(from, to));
    return copy_file(from, to, "generation_config.json");
}

Status directory_write_json(const char *directory, const char *name, const JsonValue *json) {
    Text text = {0};
    char *path = NULL;
    Status status = json_value_write(json, 2, &text);
    if (!status) status = text_append_string(&text, "\n");
    if (!status) status = path_join(directory, name, &path);
    if (!status) status = file_write_atomic(path, text.data, text.length);
    free(path);
    text_free(&text);
    return status;
}
