/* Any bytes are a checkpoint that agrees with its digest, or one clean error. */
#define _GNU_SOURCE /* memfd_create */
#include "io/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
const char *__lsan_default_suppressions(void);

/* libhdf5 itself loses the memory of an object header whose checksum is wrong. */
const char *__lsan_default_suppressions(void) { return "leak:libhdf5"; }

static void check(bool condition, const char *what) {
    if (condition) return;
    fprintf(stderr, "%s\n", what);
    abort();
}

static void read_everything(const Checkpoint *checkpoint) {
    volatile float sum = 0;
    check(strlen(checkpoint_meta(checkpoint)->digest) == 64 && checkpoint_meta(checkpoint)->config, "an incomplete head");
    for (int64_t i = 0; i < checkpoint_count(checkpoint); ++i) {
        const CheckpointTensor *tensor = checkpoint_at(checkpoint, i);
        check(checkpoint_find(checkpoint, tensor->name) == tensor, "a tensor is not found by its name");
        check(!tensor->exp_avg == !tensor->exp_avg_sq, "one moment of two");
        int64_t count = tensor->shape[0] * (tensor->dimensions == 2 ? tensor->shape[1] : 1);
        for (int64_t j = 0; j < count; ++j) sum = sum + tensor->parameter[j] + (tensor->exp_avg ? tensor->exp_avg_sq[j] : 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    int descriptor = memfd_create("fuzz", MFD_CLOEXEC);
    check(descriptor >= 0 && write(descriptor, data, size) == (ssize_t)size, "cannot write the input");
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", descriptor);
    Checkpoint *checkpoint;
    Status status = checkpoint_open(path, &checkpoint);
    if (status)
        check(!checkpoint && status_exit_code(status) == STATUS_INVALID && status_message(status)[0], "not a clean error");
    else
        read_everything(checkpoint);
    status_free(status);
    checkpoint_close(checkpoint);
    close(descriptor);
    return 0;
}
