#include "trainer/directory.h"

#include "io/file.h"

#include <dirent.h>
#include <errno.h>
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

/* The directories made here hold plain files only. */
static void remove_directory(const char *path) {
    DIR *directory = opendir(path);
    if (!directory) return;
    for (struct dirent *entry; (entry = readdir(directory));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        unlinkat(dirfd(directory), entry->d_name, 0);
    }
    closedir(directory);
    rmdir(path);
}

Status new_directory_end(NewDirectory *directory, Status status) {
    if (!status && rename(directory->temporary, directory->path) != 0)
        status = FAILURE("%s: cannot rename to %s: %s", directory->temporary, directory->path, strerror(errno));
    if (status) remove_directory(directory->temporary);
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

Status copy_model_files(const char *from, const char *to) {
    static const char *const names[] = {"tokenizer.json",    "tokenizer.json.gz",       "tokenizer_config.json",
                                        "vocab.json",        "merges.txt",              "added_tokens.json",
                                        "chat_template.jinja", "special_tokens_map.json", "generation_config.json"};
    for (size_t i = 0; i < sizeof names / sizeof *names; ++i) TRY(copy_file(from, to, names[i]));
    return STATUS_OK;
}
