/* Any bytes are a safetensors file whose every tensor byte can be read, or one clean error. */
#define _GNU_SOURCE /* memfd_create */
#include "io/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool condition, const char *what) {
    if (condition) return;
    fprintf(stderr, "%s\n", what);
    abort();
}

static void read_everything(const Safetensors *file, size_t size) {
    volatile unsigned char sum = 0;
    int64_t total = 0;
    char hex[65];
    for (size_t i = 0; i < safetensors_count(file); ++i) {
        const SafetensorsEntry *entry = safetensors_at(file, i);
        check(safetensors_find(file, entry->name) == entry, "an entry is not found by its name");
        check(entry->bytes >= 0 && safetensors_dtype_bytes(entry->dtype) > 0, "an impossible entry");
        for (int64_t j = 0; j < entry->bytes; ++j) sum = (unsigned char)(sum + ((const unsigned char *)entry->data)[j]);
        total += entry->bytes;
    }
    check(total <= (int64_t)size, "more tensor bytes than file");
    check(!safetensors_fingerprint(file, hex), "no fingerprint");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    int descriptor = memfd_create("fuzz", MFD_CLOEXEC);
    check(descriptor >= 0 && write(descriptor, data, size) == (ssize_t)size, "cannot write the input");
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", descriptor);
    Safetensors *file;
    Status status = safetensors_open(path, &file);
    if (status)
        check(!file && status_exit_code(status) == STATUS_INVALID && status_message(status)[0], "not a clean error");
    else
        read_everything(file, size);
    status_free(status);
    safetensors_close(file);
    close(descriptor);
    return 0;
}
