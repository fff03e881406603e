/* The file in which a run keeps what was chosen for its device (matmul_plans.bin): three lines of text, then bytes that only
 * the library of the second line can read.
 *
 *   adamem matmul plans 1
 *   library: NVIDIA H200, cuBLASLt 130201
 *   bytes: 493216 sha256: <64 hexadecimal digits, of the library's name and the bytes>
 *   <bytes> */
#ifndef IO_PLAN_FILE_H
#define IO_PLAN_FILE_H

#include "io/buffer.h"

/* Writes atomically. library: one line, less than 128 bytes. */
Status plan_file_write(const char *path, const char *library, const char *bytes, size_t length);
/* STATUS_INVALID names the path and what is wrong with it; nothing to free then. */
Status plan_file_read(const char *path, char library[128], Text *bytes);

#endif
