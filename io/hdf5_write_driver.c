#include "io/hdf5_write_driver.h"

#include "io/fault.h"

#if H5_VERSION_GE(1, 13, 0)
#include <H5FDdevelop.h>
#endif
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct WriteFile {
    H5FD_t base; /* HDF5's part, first */
    int descriptor;
    haddr_t allocated; /* HDF5's "end of address": what it has given out */
    haddr_t end;       /* of the file */
    int *error;
} WriteFile;

static void note_error(WriteFile *file) {
    if (!*file->error) *file->error = errno;
}

static H5FD_t *open_file(const char *name, unsigned flags, hid_t access, haddr_t maximum) {
    (void)maximum;
    int *const *error = H5Pget_driver_info(access);
    if (!error || !(flags & H5F_ACC_CREAT)) return NULL;
    WriteFile *file = calloc(1, sizeof *file);
    if (!file) return NULL;
    file->error = *error;
    file->descriptor = open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (file->descriptor >= 0) return &file->base;
    note_error(file);
    free(file);
    return NULL;
}

static herr_t close_file(H5FD_t *base) {
    WriteFile *file = (WriteFile *)base;
    /* Network file systems report a failed write as late as here. */
    if (close(file->descriptor)) note_error(file);
    free(file);
    return 0;
}

static herr_t query(const H5FD_t *base, unsigned long *flags) {
    (void)base;
    *flags = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA | H5FD_FEAT_DATA_SIEVE | H5FD_FEAT_AGGREGATE_SMALLDATA |
             H5FD_FEAT_DEFAULT_VFD_COMPATIBLE;
    return 0;
}

static haddr_t get_allocated(const H5FD_t *base, H5FD_mem_t type) {
    (void)type;
    return ((const WriteFile *)base)->allocated;
}

static herr_t set_allocated(H5FD_t *base, H5FD_mem_t type, haddr_t address) {
    (void)type;
    ((WriteFile *)base)->allocated = address;
    return 0;
}

static haddr_t get_end(const H5FD_t *base, H5FD_mem_t type) {
    (void)type;
    return ((const WriteFile *)base)->end;
}

/* Bytes that were never written, or dropped, are zero. */
static herr_t read_bytes(H5FD_t *base, H5FD_mem_t type, hid_t transfer, haddr_t address, size_t size, void *buffer) {
    (void)type, (void)transfer;
    WriteFile *file = (WriteFile *)base;
    char *bytes = buffer;
    while (size) {
        ssize_t count = pread(file->descriptor, bytes, size, (off_t)address);
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) note_error(file);
        if (count <= 0) break;
        bytes += count, address += (haddr_t)count, size -= (size_t)count;
    }
    if (size) memset(bytes, 0, size);
    return 0;
}

static herr_t write_bytes(H5FD_t *base, H5FD_mem_t type, hid_t transfer, haddr_t address, size_t size, const void *buffer) {
    (void)type, (void)transfer;
    WriteFile *file = (WriteFile *)base;
    const char *bytes = buffer;
    if (address + size > file->end) file->end = address + size;
    while (size && !*file->error) {
        fault_point("write");
        int error = fault_error("write");
        ssize_t count = error ? -1 : pwrite(file->descriptor, bytes, fault_size("write", size), (off_t)address);
        if (error) errno = error;
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) {
            note_error(file);
            break;
        }
        bytes += count, address += (haddr_t)count, size -= (size_t)count;
    }
    return 0;
}

/* HDF5 asks for the file to end where its allocations end. */
static herr_t truncate_file(H5FD_t *base, hid_t transfer, hbool_t closing) {
    (void)transfer, (void)closing;
    WriteFile *file = (WriteFile *)base;
    if (file->end == file->allocated) return 0;
    if (!*file->error && ftruncate(file->descriptor, (off_t)file->allocated)) note_error(file);
    file->end = file->allocated;
    return 0;
}

static const H5FD_class_t driver_class = {
#ifdef H5FD_CLASS_VERSION
    .version = H5FD_CLASS_VERSION,
    .value = 400, /* 256 to 511 are for drivers that are not registered with the HDF Group */
#endif
    .name = "adamem-write-once",
    .maxaddr = INT64_MAX,
    .fc_degree = H5F_CLOSE_STRONG,
    .fapl_size = sizeof(int *),
    .open = open_file,
    .close = close_file,
    .query = query,
    .get_eoa = get_allocated,
    .set_eoa = set_allocated,
    .get_eof = get_end,
    .read = read_bytes,
    .write = write_bytes,
    .truncate = truncate_file,
    .fl_map = H5FD_FLMAP_DICHOTOMY,
};

herr_t hdf5_use_write_driver(hid_t access, int *error) {
    *error = 0;
    hid_t driver = H5FDregister(&driver_class);
    if (driver < 0) return -1;
    herr_t result = H5Pset_driver(access, driver, &error);
    H5FDunregister(driver); /* access and the file hold their own references */
    return result;
}
