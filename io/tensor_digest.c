#include "io/tensor_digest.h"

#include <string.h>

static void update_u64(Sha256 *hash, uint64_t value) {
    unsigned char bytes[8];
    for (int i = 0; i < 8; ++i) bytes[i] = (unsigned char)(value >> (8 * i));
    sha256_update(hash, bytes, sizeof bytes);
}

void tensor_digest_header(Sha256 *hash, const char *name, const char *dtype, int dimensions, const int64_t *shape) {
    sha256_update(hash, name, strlen(name) + 1);
    sha256_update(hash, dtype, strlen(dtype) + 1);
    update_u64(hash, (uint64_t)dimensions);
    for (int i = 0; i < dimensions; ++i) update_u64(hash, (uint64_t)shape[i]);
}
