/* What the writer and the reader of checkpoints share: the table of /meta attributes, the names of the groups and the two
 * digests. Private to io/checkpoint*.c; the format itself is described in io/checkpoint.h. */
#ifndef IO_CHECKPOINT_FORMAT_H
#define IO_CHECKPOINT_FORMAT_H

#include "io/buffer.h"
#include "io/checkpoint.h"
#include "io/sha256.h"

#define CHECKPOINT_TEMPORARY_SUFFIX ".tmp"

typedef enum MetaType { META_INTEGER, META_REAL, META_STRING, META_OWNED_STRING } MetaType;

typedef struct MetaField {
    const char *name;
    MetaType type;
    size_t offset; /* in CheckpointMeta */
    size_t size;   /* of the array, for META_STRING */
    bool optional; /* of 8 bytes: 0 is not stored, and not in meta_digest */
} MetaField;

/* In order of name: the order of meta_digest. */
extern const MetaField checkpoint_meta_fields[];
extern const int checkpoint_meta_field_count;
/* The value of a field; const char * for strings (never NULL). */
const void *checkpoint_meta_value(const CheckpointMeta *meta, const MetaField *field);
/* False for an optional field that is 0. */
bool checkpoint_meta_stored(const CheckpointMeta *meta, const MetaField *field);
void checkpoint_meta_digest(const CheckpointMeta *meta, char hex[65]);

/* The three groups in order of their path, the order of digest. */
#define CHECKPOINT_GROUPS 3
extern const char *const checkpoint_groups[CHECKPOINT_GROUPS]; /* "/optimizer/exp_avg", ... */
/* The member of tensor that group number index stores. */
float **checkpoint_values(CheckpointTensor *tensor, int group);
/* Adds one data set to digest. */
Status checkpoint_digest_tensor(Sha256 *hash, int group, const CheckpointTensor *tensor, const float *values);

#endif
