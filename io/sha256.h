/* SHA-256 (FIPS 180-4), for checkpoint digests, fingerprints and cache keys. */
#ifndef IO_SHA256_H
#define IO_SHA256_H

#include <stddef.h>
#include <stdint.h>

/* Takes count blocks of 64 bytes into the state. */
typedef void Sha256Compress(uint32_t state[8], const unsigned char *blocks, size_t count);

typedef struct Sha256 {
    Sha256Compress *compress;
    uint32_t state[8];
    uint64_t length;
    unsigned char block[64];
} Sha256;

/* As the standard writes it; any machine. */
Sha256Compress sha256_compress_portable;
/* By the SHA instructions of x86 (sha256_x86.c); NULL if this machine has none. */
Sha256Compress *sha256_compress_x86(void);
extern const uint32_t sha256_round_constants[64];

/* Chooses the fastest compression of this machine. */
void sha256_init(Sha256 *hash);
void sha256_update(Sha256 *hash, const void *bytes, size_t length);
void sha256_final(Sha256 *hash, unsigned char digest[32]);
/* As 64 lower-case hexadecimal digits and a NUL. */
void sha256_hex(Sha256 *hash, char hex[65]);

#endif
