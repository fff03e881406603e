/* The reason for a failed HDF5 call, short enough for a message. */
#ifndef IO_HDF5_ERROR_H
#define IO_HDF5_ERROR_H

#include <stddef.h>

/* Of the last failed call of this thread, while hdf5_lock is held: the operating system's reason where there is one
 * ("No space left on device"), else the innermost description of the library's error stack. */
void hdf5_error_reason(char *reason, size_t size);

#endif
