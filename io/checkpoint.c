/* Reading checkpoints: nothing in the file is believed before it is checked. */
#include "io/checkpoint_format.h"
#include "io/file.h"
#include "io/hdf5_error.h"
#include "io/hdf5_lock.h"

#include <fcntl.h>
#include <hdf5.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct Checkpoint {
    const char *path; /* borrowed while opening */
    int64_t file_bytes;
    hid_t file;
    CheckpointMeta meta;
    CheckpointTensor *tensors; /* sorted by name; names owned */
    int64_t count, capacity;
};

/* A failed HDF5 call on a file that is there: the file is at fault. */
static Status hdf5_invalid(const char *what, int line) {
    char reason[200];
    hdf5_error_reason(reason, sizeof reason);
    return status_new(STATUS_INVALID, __FILE__, line, "cannot read %s: %s", what, reason);
}
#define TRY_HDF5(call, label, what)                                                                                              \
    do {                                                                                                                         \
        if ((call) < 0) {                                                                                                        \
            status = hdf5_invalid(what, __LINE__);                                                                               \
            goto label;                                                                                                          \
        }                                                                                                                        \
    } while (0)
#define REQUIRE(condition, label, ...)                                                                                           \
    do {                                                                                                                         \
        if (!(condition)) {                                                                                                      \
            status = INVALID_INPUT(__VA_ARGS__);                                                                                 \
            goto label;                                                                                                          \
        }                                                                                                                        \
    } while (0)

/* Superblock versions 2 and 3 carry a checksum, as everything they lead to; older ones do not, and what HDF5 would make of
 * a damaged one is anybody's guess. */
static Status check_superblock(const char *path, int64_t size) {
    static const unsigned char signature[8] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};
    unsigned char start[9] = {0};
    if (!size) INVALID("the file is empty");
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) INVALID("cannot open");
    ssize_t count = pread(descriptor, start, sizeof start, 0);
    close(descriptor);
    if (count != (ssize_t)sizeof start || memcmp(start, signature, sizeof signature)) INVALID("not an HDF5 file");
    if (start[8] != 2 && start[8] != 3)
        INVALID("HDF5 superblock version %d has no checksum: not a checkpoint of this program", start[8]);
    return STATUS_OK;
}

static Status open_file(const char *path, hid_t *file) {
    Status status = STATUS_OK;
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    TRY_HDF5(access, done, "the file");
    TRY_HDF5(H5Pset_fclose_degree(access, H5F_CLOSE_STRONG), done, "the file");
#if H5_VERSION_GE(1, 12, 1) || (H5_VERS_MAJOR == 1 && H5_VERS_MINOR == 10 && H5_VERS_RELEASE >= 7)
    /* Checkpoints never change, and cluster file systems without flock would refuse the lock. */
    TRY_HDF5(H5Pset_file_locking(access, false, true), done, "the file");
#endif
    TRY_HDF5(*file = H5Fopen(path, H5F_ACC_RDONLY, access), done, "the file");
done:
    if (access >= 0) H5Pclose(access);
    return status;
}

/* Reads one scalar attribute. value: int64_t, double, or for strings a buffer that read_string allocates. */
static Status open_attribute(hid_t group, const char *name, hid_t *attribute, hid_t *type) {
    *attribute = *type = -1;
    Status status = STATUS_OK;
    hid_t space = -1;
    htri_t exists = H5Aexists(group, name);
    REQUIRE(exists != 0, done, "attribute /meta/%s is missing", name);
    TRY_HDF5(exists, done, "/meta");
    TRY_HDF5(*attribute = H5Aopen(group, name, H5P_DEFAULT), done, name);
    TRY_HDF5(*type = H5Aget_type(*attribute), done, name);
    TRY_HDF5(space = H5Aget_space(*attribute), done, name);
    REQUIRE(H5Sget_simple_extent_npoints(space) == 1, done, "attribute /meta/%s must be a single value", name);
done:
    if (space >= 0) H5Sclose(space);
    if (status && *type >= 0) H5Tclose(*type);
    if (status && *attribute >= 0) H5Aclose(*attribute);
    return status;
}

static Status read_number(hid_t group, const char *name, H5T_class_t class_, hid_t memory_type, void *value) {
    hid_t attribute, type;
    TRY(open_attribute(group, name, &attribute, &type));
    Status status = STATUS_OK;
    REQUIRE(H5Tget_class(type) == class_ && H5Tget_size(type) == 8, done, "attribute /meta/%s must be a 64-bit %s", name,
            class_ == H5T_INTEGER ? "integer" : "real");
    TRY_HDF5(H5Aread(attribute, memory_type, value), done, name);
done:
    H5Tclose(type);
    H5Aclose(attribute);
    return status;
}

/* *out malloc'd. */
static Status read_string(const Checkpoint *checkpoint, hid_t group, const char *name, char **out) {
    hid_t attribute, type;
    TRY(open_attribute(group, name, &attribute, &type));
    Status status = STATUS_OK;
    char *text = NULL;
    size_t size = H5Tget_size(type);
    REQUIRE(H5Tget_class(type) == H5T_STRING && H5Tis_variable_str(type) == 0, done,
            "attribute /meta/%s must be a string of fixed length", name);
    REQUIRE((int64_t)size <= checkpoint->file_bytes, done, "attribute /meta/%s is longer than the file", name);
    text = calloc(size + 1, 1);
    if (!text) {
        status = FAILURE("out of memory");
        goto done;
    }
    TRY_HDF5(H5Aread(attribute, type, text), done, name);
    *out = text;
    text = NULL;
done:
    free(text);
    H5Tclose(type);
    H5Aclose(attribute);
    return status;
}

static Status read_field(Checkpoint *checkpoint, hid_t group, const MetaField *field) {
    void *member = (char *)&checkpoint->meta + field->offset;
    if (field->optional && H5Aexists(group, field->name) == 0) return STATUS_OK; /* it is 0 */
    if (field->type == META_INTEGER) return read_number(group, field->name, H5T_INTEGER, H5T_NATIVE_INT64, member);
    if (field->type == META_REAL) return read_number(group, field->name, H5T_FLOAT, H5T_NATIVE_DOUBLE, member);
    char *text = NULL;
    TRY(read_string(checkpoint, group, field->name, &text));
    if (field->type == META_OWNED_STRING) {
        *(char **)member = text;
        return STATUS_OK;
    }
    size_t length = strlen(text);
    if (length < field->size) memcpy(member, text, length + 1);
    free(text);
    if (length >= field->size) INVALID("attribute /meta/%s is longer than %zu bytes", field->name, field->size - 1);
    return STATUS_OK;
}

static Status read_meta(Checkpoint *checkpoint) {
    Status status = STATUS_OK;
    char *recorded = NULL, digest[65];
    int64_t version = 0;
    hid_t group = H5Gopen2(checkpoint->file, "/meta", H5P_DEFAULT);
    TRY_HDF5(group, done, "/meta");
    TRY_GOTO(read_number(group, "format_version", H5T_INTEGER, H5T_NATIVE_INT64, &version), done);
    REQUIRE(version == CHECKPOINT_FORMAT_VERSION, done, "checkpoint format version %lld; this program reads version %d",
            (long long)version, CHECKPOINT_FORMAT_VERSION);
    for (int i = 0; i < checkpoint_meta_field_count; ++i)
        TRY_GOTO(read_field(checkpoint, group, &checkpoint_meta_fields[i]), done);
    TRY_GOTO(read_string(checkpoint, group, "meta_digest", &recorded), done);
    checkpoint_meta_digest(&checkpoint->meta, digest);
    REQUIRE(!strcmp(recorded, digest), done, "damaged: the attributes of /meta do not agree with meta_digest");
done:
    free(recorded);
    if (group >= 0) H5Gclose(group);
    return status;
}

/* H5Literate: one link of /parameters. A non-zero return ends the iteration. */
static herr_t collect_name(hid_t group, const char *name, const H5L_info_t *info, void *context) {
    (void)group, (void)info;
    Checkpoint *checkpoint = context;
    if (checkpoint->count == checkpoint->capacity) {
        int64_t capacity = checkpoint->capacity ? 2 * checkpoint->capacity : 256;
        CheckpointTensor *tensors = realloc(checkpoint->tensors, (size_t)capacity * sizeof *tensors);
        if (!tensors) return 1;
        checkpoint->tensors = tensors;
        checkpoint->capacity = capacity;
    }
    char *copy = strdup(name);
    if (!copy) return 1;
    checkpoint->tensors[checkpoint->count++] = (CheckpointTensor){.name = copy};
    return 0;
}

static int compare_names(const void *a, const void *b) {
    return strcmp(((const CheckpointTensor *)a)->name, ((const CheckpointTensor *)b)->name);
}

static Status list_parameters(Checkpoint *checkpoint) {
    Status status = STATUS_OK;
    hid_t group = H5Gopen2(checkpoint->file, "/parameters", H5P_DEFAULT);
    TRY_HDF5(group, done, "/parameters");
    herr_t result = H5Literate(group, H5_INDEX_NAME, H5_ITER_INC, NULL, collect_name, checkpoint);
    TRY_HDF5(result, done, "/parameters");
    if (result > 0) status = FAILURE("out of memory");
    if (checkpoint->count) qsort(checkpoint->tensors, (size_t)checkpoint->count, sizeof *checkpoint->tensors, compare_names);
done:
    if (group >= 0) H5Gclose(group);
    return status;
}

/* fp32, 1 or 2 dimensions, and no storage but checksummed chunks inside this file: no external files, no plugins. */
static Status check_dataset(const Checkpoint *checkpoint, hid_t dataset, int *dimensions, int64_t shape[4]) {
    Status status = STATUS_OK;
    hid_t type = H5Dget_type(dataset), space = H5Dget_space(dataset), creation = H5Dget_create_plist(dataset);
    unsigned flags;
    size_t parameters = 0;
    hsize_t extents[H5S_MAX_RANK];
    TRY_HDF5(type, done, "its type");
    TRY_HDF5(space, done, "its shape");
    TRY_HDF5(creation, done, "its layout");
    REQUIRE(H5Tequal(type, H5T_IEEE_F32LE) > 0, done, "must be little-endian fp32");
    *dimensions = H5Sget_simple_extent_ndims(space);
    REQUIRE(*dimensions == 1 || *dimensions == 2, done, "must have 1 or 2 dimensions, has %d", *dimensions);
    REQUIRE(H5Pget_layout(creation) == H5D_CHUNKED && H5Pget_nfilters(creation) == 1 &&
                H5Pget_filter2(creation, 0, &flags, &parameters, NULL, 0, NULL, NULL) == H5Z_FILTER_FLETCHER32,
            done, "must be chunked with the fletcher32 filter and no other");
    TRY_HDF5(H5Sget_simple_extent_dims(space, extents, NULL), done, "its shape");
    int64_t bytes = (int64_t)sizeof(float);
    for (int i = 0; i < *dimensions; ++i) {
        shape[i] = (int64_t)extents[i];
        REQUIRE(shape[i] > 0 && !__builtin_mul_overflow(bytes, shape[i], &bytes), done, "extent %lld is impossible",
                (long long)shape[i]);
    }
    REQUIRE(bytes <= checkpoint->file_bytes && (hsize_t)bytes <= H5Dget_storage_size(dataset), done,
            "needs %lld bytes, more than the file stores for it", (long long)bytes);
done:
    if (creation >= 0) H5Pclose(creation);
    if (space >= 0) H5Sclose(space);
    if (type >= 0) H5Tclose(type);
    return status;
}

/* *values malloc'd; the shape of tensor is set by its first data set and demanded of the others. */
static Status read_dataset(const Checkpoint *checkpoint, hid_t group, CheckpointTensor *tensor, float **values) {
    Status status = STATUS_OK;
    H5L_info_t link;
    hid_t dataset = -1;
    int dimensions = 0;
    int64_t shape[4] = {0};
    *values = NULL;
    TRY_HDF5(H5Lget_info(group, tensor->name, &link, H5P_DEFAULT), done, "its link");
    REQUIRE(link.type == H5L_TYPE_HARD, done, "must lie in this file, not behind a link");
    TRY_HDF5(dataset = H5Dopen2(group, tensor->name, H5P_DEFAULT), done, "the data set");
    TRY_GOTO(check_dataset(checkpoint, dataset, &dimensions, shape), done);
    REQUIRE(!tensor->dimensions || (dimensions == tensor->dimensions && !memcmp(shape, tensor->shape, sizeof shape)), done,
            "its shape differs from that of its other data sets");
    tensor->dimensions = dimensions;
    memcpy(tensor->shape, shape, sizeof shape);
    size_t bytes = (size_t)shape[0] * (size_t)(dimensions == 2 ? shape[1] : 1) * sizeof(float);
    *values = malloc(bytes);
    if (!*values) {
        status = FAILURE("out of memory: %zu bytes", bytes);
        goto done;
    }
    TRY_HDF5(H5Dread(dataset, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, *values), done, "its values");
done:
    if (dataset >= 0) H5Dclose(dataset);
    if (status) {
        free(*values);
        *values = NULL;
    }
    return status;
}

/* Reads a group in name order into digest, and keeps the values if keep. has: which tensors have a data set in it. */
static Status read_group(Checkpoint *checkpoint, int index, bool keep, Sha256 *digest, bool *has) {
    const char *path = checkpoint_groups[index];
    Status status = STATUS_OK;
    H5G_info_t info;
    hsize_t found = 0;
    hid_t group = H5Gopen2(checkpoint->file, path, H5P_DEFAULT);
    TRY_HDF5(group, done, path);
    TRY_HDF5(H5Gget_info(group, &info), done, path);
    for (int64_t i = 0; i < checkpoint->count; ++i) {
        CheckpointTensor *tensor = &checkpoint->tensors[i];
        htri_t exists = H5Lexists(group, tensor->name, H5P_DEFAULT);
        TRY_HDF5(exists, done, path);
        has[i] = exists > 0;
        if (!exists) continue;
        ++found;
        float *values = NULL;
        TRY_GOTO(status_prefix(read_dataset(checkpoint, group, tensor, &values), "%s/%s", path, tensor->name), done);
        status = checkpoint_digest_tensor(digest, index, tensor, values);
        if (keep)
            *checkpoint_values(tensor, index) = values;
        else
            free(values);
        if (status) goto done;
    }
    REQUIRE(found == info.nlinks, done, "%s holds a data set that /parameters lacks", path);
done:
    if (group >= 0) H5Gclose(group);
    return status;
}

static Status read_tensors(Checkpoint *checkpoint, bool keep) {
    Sha256 hash;
    char digest[65];
    sha256_init(&hash);
    TRY(list_parameters(checkpoint));
    bool *has;
    TRY_ALLOC(has = calloc((size_t)checkpoint->count + 1, CHECKPOINT_GROUPS * sizeof *has));
    Status status = STATUS_OK;
    for (int group = 0; group < CHECKPOINT_GROUPS; ++group)
        TRY_GOTO(read_group(checkpoint, group, keep, &hash, has + group * checkpoint->count), done);
    for (int64_t i = 0; i < checkpoint->count; ++i)
        REQUIRE(has[i] == has[checkpoint->count + i], done, "%s/%s is missing", checkpoint_groups[has[i] ? 1 : 0],
                checkpoint->tensors[i].name);
    sha256_hex(&hash, digest);
    REQUIRE(!strcmp(digest, checkpoint->meta.digest), done, "damaged: the tensors do not agree with the digest");
done:
    free(has);
    return status;
}

static Status load(Checkpoint *checkpoint, const char *path, bool keep) {
    TRY(check_superblock(path, checkpoint->file_bytes));
    TRY(open_file(path, &checkpoint->file));
    TRY(read_meta(checkpoint));
    return read_tensors(checkpoint, keep);
}

static Status open_checkpoint(const char *path, bool keep, Checkpoint **out) {
    *out = NULL;
    int64_t size;
    TRY(file_size(path, &size));
    if (file_is_directory(path)) INVALID("%s: a directory, not a checkpoint", path);
    Checkpoint *checkpoint;
    TRY_ALLOC(checkpoint = calloc(1, sizeof *checkpoint));
    checkpoint->file_bytes = size;
    checkpoint->file = -1;
    hdf5_lock();
    Status status = status_prefix(load(checkpoint, path, keep), "%s", path);
    if (checkpoint->file >= 0) H5Fclose(checkpoint->file);
    hdf5_unlock();
    if (status)
        checkpoint_close(checkpoint);
    else
        *out = checkpoint;
    return status;
}

Status checkpoint_open(const char *path, Checkpoint **out) { return open_checkpoint(path, true, out); }

Status checkpoint_verify(const char *path) {
    Checkpoint *checkpoint;
    TRY(open_checkpoint(path, false, &checkpoint));
    checkpoint_close(checkpoint);
    return STATUS_OK;
}

bool checkpoint_recognise(const char *path) {
    hdf5_lock();
    hid_t file = -1;
    bool recognised = H5Fis_hdf5(path) > 0;
    if (recognised) {
        Status status = open_file(path, &file);
        status_free(status);
        recognised = file >= 0 && H5Lexists(file, "meta", H5P_DEFAULT) > 0 && H5Lexists(file, "parameters", H5P_DEFAULT) > 0;
    }
    if (file >= 0) H5Fclose(file);
    hdf5_unlock();
    return recognised;
}

void checkpoint_close(Checkpoint *checkpoint) {
    if (!checkpoint) return;
    for (int64_t i = 0; i < checkpoint->count; ++i) {
        CheckpointTensor *tensor = &checkpoint->tensors[i];
        for (int group = 0; group < CHECKPOINT_GROUPS; ++group) free(*checkpoint_values(tensor, group));
        free((char *)(uintptr_t)tensor->name);
    }
    free(checkpoint->tensors);
    checkpoint_meta_free(&checkpoint->meta);
    free(checkpoint);
}

const CheckpointMeta *checkpoint_meta(const Checkpoint *checkpoint) { return &checkpoint->meta; }
int64_t checkpoint_count(const Checkpoint *checkpoint) { return checkpoint->count; }
const CheckpointTensor *checkpoint_at(const Checkpoint *checkpoint, int64_t index) { return &checkpoint->tensors[index]; }

const CheckpointTensor *checkpoint_find(const Checkpoint *checkpoint, const char *name) {
    CheckpointTensor key = {.name = name};
    if (!checkpoint->count) return NULL;
    return bsearch(&key, checkpoint->tensors, (size_t)checkpoint->count, sizeof key, compare_names);
}
