/* Places where tests let something go wrong: a kill, a stop, a slow rank, a full disk, a flipped bit.
 *
 * Only the program adamem_faults, which the tests build from the same sources with ADAMEM_FAULTS defined, has anything here
 * (tests/faults/fault.c, where the environment variables that arm it are described). Elsewhere these are empty inline
 * functions, which leave no trace in the machine code. */
#ifndef IO_FAULT_H
#define IO_FAULT_H

#include <stddef.h>
#include <stdint.h>

#ifdef ADAMEM_FAULTS
/* Who passes the points from now on, and in which step. */
void fault_set_rank(int rank);
void fault_set_step(int64_t step);
/* May kill, stop or delay the process. */
void fault_point(const char *point);
/* The errno with which the system call that follows shall seem to fail; 0: it is really made. */
int fault_error(const char *point);
/* How many of `size` bytes the write that follows is asked to take. */
size_t fault_size(const char *point, size_t size);
/* May change one bit in the middle of the file. */
void fault_file(const char *point, const char *path);
/* May put a NaN into host memory. */
void fault_values(const char *point, float *values, int64_t count);
/* Tells which samples this rank takes in this step. */
void fault_samples(const int64_t *samples, int64_t count);
#else
static inline void fault_set_rank(int rank) { (void)rank; }
static inline void fault_set_step(int64_t step) { (void)step; }
static inline void fault_point(const char *point) { (void)point; }
static inline int fault_error(const char *point) {
    (void)point;
    return 0;
}
static inline size_t fault_size(const char *point, size_t size) {
    (void)point;
    return size;
}
static inline void fault_file(const char *point, const char *path) { (void)point, (void)path; }
static inline void fault_values(const char *point, float *values, int64_t count) { (void)point, (void)values, (void)count; }
static inline void fault_samples(const int64_t *samples, int64_t count) { (void)samples, (void)count; }
#endif

#endif
