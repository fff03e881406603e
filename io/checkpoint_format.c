#include "io/checkpoint_format.h"

#include "io/tensor_digest.h"

#include <stdlib.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "digests are defined over little-endian bytes");

#define INTEGER(name)                                                                                                            \
    { #name, META_INTEGER, offsetof(CheckpointMeta, name), sizeof(int64_t), false }
#define REAL(name)                                                                                                               \
    { #name, META_REAL, offsetof(CheckpointMeta, name), sizeof(double), false }
#define OPTIONAL_REAL(name)                                                                                                      \
    { #name, META_REAL, offsetof(CheckpointMeta, name), sizeof(double), true }
#define STRING(name)                                                                                                             \
    { #name, META_STRING, offsetof(CheckpointMeta, name), sizeof(((CheckpointMeta *)0)->name), false }

const MetaField checkpoint_meta_fields[] = {
    STRING(backend),
    STRING(base_fingerprint),
    REAL(best_metric),
    INTEGER(best_step),
    {"config", META_OWNED_STRING, offsetof(CheckpointMeta, config), 0, false},
    INTEGER(consecutive_skips),
    INTEGER(cursor),
    STRING(digest),
    REAL(epoch),
    {"evaluation_pending", META_INTEGER, offsetof(CheckpointMeta, evaluation_pending), sizeof(int64_t), true},
    INTEGER(format_version),
    INTEGER(loss_count),
    OPTIONAL_REAL(loss_coverage_sum),
    OPTIONAL_REAL(loss_cross_entropy_sum),
    OPTIONAL_REAL(loss_length_sum),
    REAL(loss_sum),
    INTEGER(patience),
    STRING(program_version),
    INTEGER(seed),
    INTEGER(step),
    INTEGER(threads),
    INTEGER(updates),
    INTEGER(world_size),
};
const int checkpoint_meta_field_count = (int)(sizeof checkpoint_meta_fields / sizeof *checkpoint_meta_fields);

const char *const checkpoint_groups[CHECKPOINT_GROUPS] = {"/optimizer/exp_avg", "/optimizer/exp_avg_sq", "/parameters"};

const void *checkpoint_meta_value(const CheckpointMeta *meta, const MetaField *field) {
    const void *member = (const char *)meta + field->offset;
    if (field->type != META_OWNED_STRING) return member;
    const char *string = *(char *const *)member;
    return string ? string : "";
}

bool checkpoint_meta_stored(const CheckpointMeta *meta, const MetaField *field) {
    return !field->optional || *(const int64_t *)checkpoint_meta_value(meta, field) != 0;
}

void checkpoint_meta_digest(const CheckpointMeta *meta, char hex[65]) {
    Sha256 hash;
    sha256_init(&hash);
    for (int i = 0; i < checkpoint_meta_field_count; ++i) {
        const MetaField *field = &checkpoint_meta_fields[i];
        if (!checkpoint_meta_stored(meta, field)) continue;
        const void *value = checkpoint_meta_value(meta, field);
        bool is_string = field->type == META_STRING || field->type == META_OWNED_STRING;
        sha256_update(&hash, field->name, strlen(field->name) + 1);
        sha256_update(&hash, value, is_string ? strlen(value) + 1 : 8);
    }
    sha256_hex(&hash, hex);
}

void checkpoint_meta_free(CheckpointMeta *meta) {
    free(meta->config);
    meta->config = NULL;
}

float **checkpoint_values(CheckpointTensor *tensor, int group) {
    float **members[CHECKPOINT_GROUPS] = {&tensor->exp_avg, &tensor->exp_avg_sq, &tensor->parameter};
    return members[group];
}

Status checkpoint_digest_tensor(Sha256 *hash, int group, const CheckpointTensor *tensor, const float *values) {
    Text path = {0};
    Status status;
    TRY_GOTO(text_append_format(&path, "%s/%s", checkpoint_groups[group], tensor->name), done);
    tensor_digest_header(hash, path.data, "F32", tensor->dimensions, tensor->shape);
    size_t bytes = sizeof(float);
    for (int i = 0; i < tensor->dimensions; ++i) bytes *= (size_t)tensor->shape[i];
    sha256_update(hash, values, bytes);
done:
    text_free(&path);
    return status;
}
