#include "io/content_hash.h"

#include "io/sha256.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BLOCK = 1 << 16, SAMPLED_BLOCKS = 1024 };

static Status hash_block(int descriptor, const char *path, int64_t offset, unsigned char *block, Sha256 *hash, int64_t *length) {
    int64_t filled = 0;
    while (filled < BLOCK) {
        ssize_t count = pread(descriptor, block + filled, (size_t)(BLOCK - filled), offset + filled);
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) FAIL("%s: cannot read: %s", path, strerror(errno));
        if (!count) break;
        filled += count;
    }
    sha256_update(hash, block, (size_t)filled);
    *length = filled;
    return STATUS_OK;
}

static Status hash_whole(int descriptor, const char *path, unsigned char *block, Sha256 *hash) {
    int64_t offset = 0, length;
    do {
        TRY(hash_block(descriptor, path, offset, block, hash, &length));
        offset += length;
    } while (length);
    return STATUS_OK;
}

static Status hash_sampled(int descriptor, const char *path, const struct stat *info, unsigned char *block, Sha256 *hash) {
    int64_t changed[2] = {info->st_mtim.tv_sec, info->st_mtim.tv_nsec}, length;
    sha256_update(hash, changed, sizeof changed);
    int64_t span = (info->st_size - BLOCK) / (SAMPLED_BLOCKS - 1);
    for (int64_t i = 0; i < SAMPLED_BLOCKS; ++i) {
        int64_t offset = i + 1 < SAMPLED_BLOCKS ? i * span : info->st_size - BLOCK;
        TRY(hash_block(descriptor, path, offset, block, hash, &length));
    }
    return STATUS_OK;
}

static Status hash_file(int descriptor, const char *path, unsigned char *block, char hex[65]) {
    struct stat info;
    if (fstat(descriptor, &info)) FAIL("%s: %s", path, strerror(errno));
    if (!S_ISREG(info.st_mode)) INVALID("%s: not a regular file", path);
    Sha256 hash;
    int64_t size = info.st_size;
    sha256_init(&hash);
    sha256_update(&hash, &size, sizeof size);
    if (size <= CONTENT_HASH_WHOLE_BYTES)
        TRY(hash_whole(descriptor, path, block, &hash));
    else
        TRY(hash_sampled(descriptor, path, &info, block, &hash));
    sha256_hex(&hash, hex);
    return STATUS_OK;
}

Status content_hash(const char *path, char hex[65]) {
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) INVALID("%s: cannot open: %s", path, strerror(errno));
    unsigned char *block = malloc(BLOCK);
    Status status = block ? hash_file(descriptor, path, block, hex) : FAILURE("out of memory: block of %s", path);
    free(block);
    close(descriptor);
    return status;
}
