/* What a data file is, whatever it is called: the part of a cache key that comes from data. */
#ifndef IO_CONTENT_HASH_H
#define IO_CONTENT_HASH_H

#include "io/status.h"

/* Files up to this size are hashed byte by byte. */
#define CONTENT_HASH_WHOLE_BYTES ((int64_t)1 << 30)

/* SHA-256 over the size and all bytes; for larger files over the size, the time of the last change and 1,024 evenly spread
 * blocks of 64 KiB (first and last among them), so that starting a run does not read 30 GB. Errors name the path. */
Status content_hash(const char *path, char hex[65]);

#endif
