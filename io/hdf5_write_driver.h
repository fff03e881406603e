/* An HDF5 file driver for files that are written once: it never tells HDF5 that a write failed.
 *
 * After a failed write (disk full) the library cannot get rid of its dirty pages, fails to close what it has open, keeps
 * identifiers of freed objects and crashes on them when the process ends. So this driver notes the first error, drops the
 * writes after it, and lets HDF5 close the file in peace; the caller looks at the error before and after closing. */
#ifndef IO_HDF5_WRITE_DRIVER_H
#define IO_HDF5_WRITE_DRIVER_H

#include <hdf5.h>

/* Makes access (a file access property list, for H5Fcreate only) use the driver. *error, which must live until the file is
 * closed, becomes the errno of the first failure; 0 until then. Negative on failure, as HDF5. */
herr_t hdf5_use_write_driver(hid_t access, int *error);

#endif
