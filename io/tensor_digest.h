/* How a tensor enters a SHA-256: the one serialisation behind checkpoint digests and base model fingerprints.
 *
 * name, a zero byte, dtype as safetensors writes it ("F32"), a zero byte, the number of dimensions and each extent as
 * unsigned 64-bit little-endian integers; then the bytes of the tensor, little-endian and row-major. */
#ifndef IO_TENSOR_DIGEST_H
#define IO_TENSOR_DIGEST_H

#include "io/sha256.h"

/* Everything before the bytes. */
void tensor_digest_header(Sha256 *hash, const char *name, const char *dtype, int dimensions, const int64_t *shape);

#endif
