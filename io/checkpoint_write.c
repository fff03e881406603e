#include "io/checkpoint_format.h"
#include "io/fault.h"
#include "io/file.h"
#include "io/hdf5_error.h"
#include "io/hdf5_lock.h"
#include "io/hdf5_write_driver.h"

#include <errno.h>
#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHUNK_ELEMENTS (1 << 18) /* 1 MiB: HDF5 checks and caches whole chunks */

typedef struct Writer {
    const char *path; /* of the finished checkpoint, for messages */
    hid_t file;
    int error; /* errno of the first failed write; HDF5 does not hear of it (io/hdf5_write_driver.h) */
} Writer;

static Status write_failure(const Writer *writer, int line) {
    char reason[200];
    if (writer->error)
        snprintf(reason, sizeof reason, "%s", strerror(writer->error));
    else
        hdf5_error_reason(reason, sizeof reason);
    return status_new(STATUS_FAILED, __FILE__, line, "%s: cannot write the checkpoint: %s", writer->path, reason);
}
#define TRY_HDF5(call, label)                                                                                                    \
    do {                                                                                                                         \
        if ((call) < 0) {                                                                                                        \
            status = write_failure(writer, __LINE__);                                                                            \
            goto label;                                                                                                          \
        }                                                                                                                        \
    } while (0)

static Status check_tensor(const CheckpointTensor *tensor) {
    const char *name = tensor->name;
    if (!*name || strchr(name, '/') || !strcmp(name, ".")) INVALID("tensor name \"%s\" cannot be stored in HDF5", name);
    if (tensor->dimensions < 1 || tensor->dimensions > 2) INVALID("tensor \"%s\": must have 1 or 2 dimensions", name);
    int64_t bytes = (int64_t)sizeof(float);
    for (int i = 0; i < tensor->dimensions; ++i)
        if (tensor->shape[i] < 1 || __builtin_mul_overflow(bytes, tensor->shape[i], &bytes))
            INVALID("tensor \"%s\": extent %lld cannot be stored", name, (long long)tensor->shape[i]);
    if (!tensor->parameter) INVALID("tensor \"%s\": no values", name);
    if (!tensor->exp_avg != !tensor->exp_avg_sq) INVALID("tensor \"%s\": has one moment of two", name);
    return STATUS_OK;
}

static int compare_names(const void *a, const void *b) {
    return strcmp(((const CheckpointTensor *)a)->name, ((const CheckpointTensor *)b)->name);
}

/* A copy of the descriptions in name order, checked. */
static Status sort_tensors(const CheckpointTensor *tensors, int64_t count, CheckpointTensor **out) {
    CheckpointTensor *sorted;
    TRY_ALLOC(sorted = malloc(((size_t)count + 1) * sizeof *sorted));
    if (count) memcpy(sorted, tensors, (size_t)count * sizeof *sorted);
    Status status = STATUS_OK;
    for (int64_t i = 0; i < count; ++i) TRY_GOTO(check_tensor(&sorted[i]), failed);
    qsort(sorted, (size_t)count, sizeof *sorted, compare_names);
    for (int64_t i = 1; i < count; ++i) {
        if (strcmp(sorted[i - 1].name, sorted[i].name)) continue;
        status = INVALID_INPUT("tensor \"%s\" is given twice", sorted[i].name);
        goto failed;
    }
    *out = sorted;
    return STATUS_OK;
failed:
    free(sorted);
    return status;
}

static Status digest_tensors(CheckpointTensor *sorted, int64_t count, char hex[65]) {
    Sha256 hash;
    sha256_init(&hash);
    for (int group = 0; group < CHECKPOINT_GROUPS; ++group) {
        for (int64_t i = 0; i < count; ++i) {
            const float *values = *checkpoint_values(&sorted[i], group);
            if (values) TRY(checkpoint_digest_tensor(&hash, group, &sorted[i], values));
        }
    }
    sha256_hex(&hash, hex);
    return STATUS_OK;
}

/* One scalar attribute. */
static Status write_attribute(const Writer *writer, hid_t object, const char *name, hid_t file_type, hid_t memory_type,
                              const void *value) {
    Status status = STATUS_OK;
    hid_t space = H5Screate(H5S_SCALAR), attribute = -1;
    TRY_HDF5(space, done);
    TRY_HDF5(attribute = H5Acreate2(object, name, file_type, space, H5P_DEFAULT, H5P_DEFAULT), done);
    TRY_HDF5(H5Awrite(attribute, memory_type, value), done);
done:
    if (attribute >= 0) H5Aclose(attribute);
    if (space >= 0) H5Sclose(space);
    return status;
}

static Status write_string(const Writer *writer, hid_t object, const char *name, const char *value) {
    Status status = STATUS_OK;
    hid_t type = H5Tcopy(H5T_C_S1);
    TRY_HDF5(type, done);
    TRY_HDF5(H5Tset_size(type, strlen(value) + 1), done);
    TRY_HDF5(H5Tset_cset(type, H5T_CSET_UTF8), done);
    TRY_GOTO(write_attribute(writer, object, name, type, type, value), done);
done:
    if (type >= 0) H5Tclose(type);
    return status;
}

static Status write_meta(const Writer *writer, const CheckpointMeta *meta) {
    Status status = STATUS_OK;
    char digest[65];
    hid_t creation = H5Pcreate(H5P_GROUP_CREATE), group = -1;
    TRY_HDF5(creation, done);
    /* Attributes in the object header, which has a checksum, instead of a heap. */
    TRY_HDF5(H5Pset_attr_phase_change(creation, 64, 0), done);
    TRY_HDF5(H5Pset_obj_track_times(creation, false), done);
    TRY_HDF5(group = H5Gcreate2(writer->file, "/meta", H5P_DEFAULT, creation, H5P_DEFAULT), done);
    for (int i = 0; i < checkpoint_meta_field_count; ++i) {
        const MetaField *field = &checkpoint_meta_fields[i];
        if (!checkpoint_meta_stored(meta, field)) continue;
        const void *value = checkpoint_meta_value(meta, field);
        if (field->type == META_INTEGER)
            TRY_GOTO(write_attribute(writer, group, field->name, H5T_STD_I64LE, H5T_NATIVE_INT64, value), done);
        else if (field->type == META_REAL)
            TRY_GOTO(write_attribute(writer, group, field->name, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, value), done);
        else
            TRY_GOTO(write_string(writer, group, field->name, value), done);
    }
    checkpoint_meta_digest(meta, digest);
    TRY_GOTO(write_string(writer, group, "meta_digest", digest), done);
done:
    if (group >= 0) H5Gclose(group);
    if (creation >= 0) H5Pclose(creation);
    return status;
}

/* Chunked because only chunks can have a checksum: as many whole rows as fit in about 1 MiB. */
static void choose_chunk(const CheckpointTensor *tensor, hsize_t shape[2], hsize_t chunk[2]) {
    for (int i = 0; i < tensor->dimensions; ++i) shape[i] = (hsize_t)tensor->shape[i];
    hsize_t room = CHUNK_ELEMENTS;
    for (int i = tensor->dimensions - 1; i >= 0; --i) {
        chunk[i] = shape[i] < room ? shape[i] : room;
        room /= chunk[i];
        if (!room) room = 1;
    }
}

static Status write_tensor(const Writer *writer, hid_t group, const CheckpointTensor *tensor, const float *values) {
    Status status = STATUS_OK;
    hsize_t shape[2], chunk[2];
    choose_chunk(tensor, shape, chunk);
    hid_t space = H5Screate_simple(tensor->dimensions, shape, NULL), creation = H5Pcreate(H5P_DATASET_CREATE), dataset = -1;
    TRY_HDF5(space, done);
    TRY_HDF5(creation, done);
    TRY_HDF5(H5Pset_chunk(creation, tensor->dimensions, chunk), done);
    TRY_HDF5(H5Pset_fletcher32(creation), done);
    TRY_HDF5(H5Pset_obj_track_times(creation, false), done);
    TRY_HDF5(dataset = H5Dcreate2(group, tensor->name, H5T_IEEE_F32LE, space, H5P_DEFAULT, creation, H5P_DEFAULT), done);
    TRY_HDF5(H5Dwrite(dataset, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values), done);
    /* Now the cached chunks reach the file, and a full disk is noticed before the next tensor. */
    TRY_HDF5(H5Dflush(dataset), done);
    TRY_HDF5(writer->error ? -1 : 0, done);
done:
    if (dataset >= 0) H5Dclose(dataset);
    if (creation >= 0) H5Pclose(creation);
    if (space >= 0) H5Sclose(space);
    return status;
}

/* Without times: equal contents shall give equal files. */
static Status create_group(const Writer *writer, const char *name, hid_t *group) {
    Status status = STATUS_OK;
    hid_t creation = H5Pcreate(H5P_GROUP_CREATE);
    TRY_HDF5(creation, done);
    TRY_HDF5(H5Pset_obj_track_times(creation, false), done);
    TRY_HDF5(*group = H5Gcreate2(writer->file, name, H5P_DEFAULT, creation, H5P_DEFAULT), done);
done:
    if (creation >= 0) H5Pclose(creation);
    return status;
}

static Status write_group(const Writer *writer, int index, CheckpointTensor *sorted, int64_t count) {
    hid_t group = -1;
    Status status;
    TRY_GOTO(create_group(writer, checkpoint_groups[index], &group), done);
    for (int64_t i = 0; i < count; ++i) {
        const float *values = *checkpoint_values(&sorted[i], index);
        if (!values) continue;
        TRY_GOTO(write_tensor(writer, group, &sorted[i], values), done);
        hdf5_yield(); /* the loader must not wait for gigabytes */
    }
done:
    if (group >= 0) H5Gclose(group);
    return status;
}

static Status create_file(Writer *writer, const char *temporary_path) {
    Status status = STATUS_OK;
    hid_t access = H5Pcreate(H5P_FILE_ACCESS), creation = H5Pcreate(H5P_FILE_CREATE);
    TRY_HDF5(access, done);
    TRY_HDF5(creation, done);
    TRY_HDF5(hdf5_use_write_driver(access, &writer->error), done);
    /* The 1.10 format is the first in which every piece of metadata has a checksum. */
    TRY_HDF5(H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110), done);
    TRY_HDF5(H5Pset_fclose_degree(access, H5F_CLOSE_STRONG), done);
    TRY_HDF5(H5Pset_obj_track_times(creation, false), done);
    TRY_HDF5(writer->file = H5Fcreate(temporary_path, H5F_ACC_TRUNC, creation, access), done);
done:
    if (access >= 0) H5Pclose(access);
    if (creation >= 0) H5Pclose(creation);
    return status;
}

static Status write_contents(const Writer *writer, const CheckpointMeta *meta, CheckpointTensor *sorted, int64_t count) {
    Status status = STATUS_OK;
    hid_t optimizer = -1;
    TRY_GOTO(write_meta(writer, meta), done);
    TRY_GOTO(create_group(writer, "/optimizer", &optimizer), done);
    for (int group = 0; group < CHECKPOINT_GROUPS; ++group) TRY_GOTO(write_group(writer, group, sorted, count), done);
    TRY_HDF5(H5Fflush(writer->file, H5F_SCOPE_GLOBAL), done);
done:
    if (optimizer >= 0) H5Gclose(optimizer);
    return status;
}

static Status write_file(Writer *writer, const char *temporary_path, const CheckpointMeta *meta, CheckpointTensor *sorted,
                         int64_t count) {
    Status status;
    TRY_GOTO(create_file(writer, temporary_path), done);
    status = write_contents(writer, meta, sorted, count);
    herr_t closed = H5Fclose(writer->file);
    if (!status && (closed < 0 || writer->error)) status = write_failure(writer, __LINE__);
done:
    if (status) unlink(temporary_path);
    return status;
}

/* What HDF5 adds: headers and chunk indices of a data set, and those of the file. */
#define DATASET_OVERHEAD 2048
#define FILE_OVERHEAD    65536

int64_t checkpoint_bytes(const CheckpointMeta *meta, const CheckpointTensor *tensors, int64_t count) {
    int64_t bytes = FILE_OVERHEAD + (meta->config ? (int64_t)strlen(meta->config) : 0);
    for (int64_t i = 0; i < count; ++i) {
        hsize_t shape[2], chunk[2], chunks = 1, chunk_bytes = sizeof(float);
        choose_chunk(&tensors[i], shape, chunk);
        for (int k = 0; k < tensors[i].dimensions; ++k) {
            chunks *= (shape[k] + chunk[k] - 1) / chunk[k];
            chunk_bytes *= chunk[k];
        }
        int64_t dataset = DATASET_OVERHEAD + (int64_t)(chunks * (chunk_bytes + 64)); /* 64: checksum, and place in the index */
        bytes += (tensors[i].exp_avg ? 3 : 1) * dataset;
    }
    return bytes;
}

/* A file system that cannot tell is asked by writing. */
static Status check_space(const char *path, int64_t needed) {
    char *directory;
    int64_t available = INT64_MAX;
    TRY_ALLOC(directory = strdup(path));
    char *slash = strrchr(directory, '/');
    if (slash) slash[slash == directory] = 0;
    status_free(file_free_space(slash ? directory : ".", &available));
    free(directory);
    if (fault_error("space")) available = 0;
    if (available < needed)
        FAIL("%s: cannot write the checkpoint: %s: %.1f MB are needed, %.1f MB are free", path, strerror(ENOSPC),
             (double)needed / 1e6, (double)available / 1e6);
    return STATUS_OK;
}

Status checkpoint_write(const char *path, CheckpointMeta *meta, const CheckpointTensor *tensors, int64_t count) {
    CheckpointTensor *sorted = NULL;
    Text temporary = {0};
    Writer writer = {.path = path, .file = -1};
    Status status;
    TRY_GOTO(status_prefix(sort_tensors(tensors, count, &sorted), "%s", path), done);
    TRY_GOTO(text_append_format(&temporary, "%s%s", path, CHECKPOINT_TEMPORARY_SUFFIX), done);
    meta->format_version = CHECKPOINT_FORMAT_VERSION;
    TRY_GOTO(digest_tensors(sorted, count, meta->digest), done);
    TRY_GOTO(check_space(path, checkpoint_bytes(meta, sorted, count)), done);
    fault_point("before-write");
    hdf5_lock();
    status = write_file(&writer, temporary.data, meta, sorted, count);
    hdf5_unlock();
    /* Syncing takes the longest, and is nothing that HDF5 does. */
    if (!status) status = file_commit(temporary.data, path);
    if (!status) fault_file("written", path);
done:
    text_free(&temporary);
    free(sorted);
    return status;
}
