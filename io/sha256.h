/* SHA-256 (FIPS 180-4), for checkpoint digests, fingerprints and cache keys. */
#ifndef IO_SHA256_H
#define IO_SHA256_H

#include <stddef.h>
#include <stdint.h>

typedef struct Sha256 {
    uint32_t state[8];
    uint64_t length;
    unsigned char block[64];
} Sha256;

void sha256_init(Sha256 *hash);
void sha256_update(Sha256 *hash, const void *bytes, size_t length);
void sha256_final(Sha256 *hash, unsigned char digest[32]);
/* As 64 lower-case hexadecimal digits and a NUL. */
void sha256_hex(Sha256 *hash, char hex[65]);

#endif
