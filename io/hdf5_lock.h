/* One lock around every call into the HDF5 library.
 *
 * The library as distributions build it is not thread-safe and keeps process-wide state, so this lock is process-wide too:
 * the loader thread reads token data sets while another thread writes a checkpoint. First come, first served: a long writer
 * that yields lets in whoever waits. Not recursive. Nothing outside io/ needs it. */
#ifndef IO_HDF5_LOCK_H
#define IO_HDF5_LOCK_H

/* Also silences the library's own error printing, which is per thread and on by default. */
void hdf5_lock(void);
void hdf5_unlock(void);
/* Between two calls of a holder: those who wait come first. */
void hdf5_yield(void);

#endif
