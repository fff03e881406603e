/* Feeds every file of the given directories to a fuzz entry, so that the corpora are tested under any compiler. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay_file(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) return perror(path), 1;
    enum { LARGEST = 1 << 24 };
    uint8_t *bytes = malloc(LARGEST);
    size_t size = bytes ? fread(bytes, 1, LARGEST, file) : 0;
    fclose(file);
    /* A copy of the exact size lets the address sanitizer see reads past the end. */
    uint8_t *exact = malloc(size ? size : 1);
    if (!bytes || !exact) return fputs("out of memory\n", stderr), 1;
    for (size_t i = 0; i < size; ++i) exact[i] = bytes[i];
    free(bytes);
    LLVMFuzzerTestOneInput(exact, size);
    free(exact);
    return 0;
}

int main(int count, char **arguments) {
    int files = 0, failed = 0;
    for (int i = 1; i < count; ++i) {
        struct dirent **entries;
        int found = scandir(arguments[i], &entries, NULL, alphasort);
        if (found < 0) return perror(arguments[i]), 1;
        for (int j = 0; j < found; ++j) {
            char path[4096];
            struct stat info;
            snprintf(path, sizeof path, "%s/%s", arguments[i], entries[j]->d_name);
            if (!stat(path, &info) && S_ISREG(info.st_mode)) failed |= replay_file(path), ++files;
            free(entries[j]);
        }
        free(entries);
    }
    printf("%d inputs\n", files);
    return failed || !files;
}
