/* Training checkpoints in HDF5 (CONTRACT.md, "Files of a run").
 *
 * /meta carries attributes; tensors are fp32 data sets /parameters/NAME, /optimizer/exp_avg/NAME,
 * /optimizer/exp_avg_sq/NAME with the fletcher32 filter. digest = SHA-256 over (name, dtype, shape, bytes) of all tensor
 * data sets in order of their full path. A checkpoint is written as a new file, flushed, closed, fsynced, renamed, and its
 * directory fsynced; it is never changed afterwards. Reading verifies format version, checksums and digest. */
#ifndef IO_CHECKPOINT_H
#define IO_CHECKPOINT_H

#include "io/status.h"

#include <stdbool.h>
#include <stdint.h>

#define CHECKPOINT_FORMAT_VERSION 1

typedef struct CheckpointMeta {
    int64_t format_version, step, updates;
    double epoch;
    int64_t cursor; /* samples consumed in the current epoch */
    int64_t seed, world_size, threads;
    char backend[16];
    double best_metric; /* NaN before the first evaluation */
    int64_t best_step;  /* -1 before the first evaluation */
    int64_t patience, consecutive_skips;
    char *config; /* the effective configuration as text; owned */
    char program_version[64];
    char base_fingerprint[65];
    char digest[65]; /* filled by write and read */
} CheckpointMeta;
void checkpoint_meta_free(CheckpointMeta *meta);

typedef struct CheckpointTensor {
    const char *name; /* PEFT name for adapters, Hugging Face name for base tensors */
    int dimensions;   /* 1 or 2 */
    int64_t shape[4];
    float *parameter, *exp_avg, *exp_avg_sq; /* caller's memory; the moments NULL = not stored */
} CheckpointTensor;

/* Writes path atomically; meta->digest is filled in. On any error the temporary file is removed and nothing else touched. */
Status checkpoint_write(const char *path, CheckpointMeta *meta, const CheckpointTensor *tensors, int64_t count);

typedef struct Checkpoint Checkpoint;
/* Opens and verifies: version, structure, attribute types, checksums, digest. STATUS_INVALID names path and reason. */
Status checkpoint_open(const char *path, Checkpoint **out);
void checkpoint_close(Checkpoint *checkpoint);
const CheckpointMeta *checkpoint_meta(const Checkpoint *checkpoint);
int64_t checkpoint_count(const Checkpoint *checkpoint);
/* Tensor i in name order; pointers lead to memory owned by the checkpoint. */
const CheckpointTensor *checkpoint_at(const Checkpoint *checkpoint, int64_t index);
const CheckpointTensor *checkpoint_find(const Checkpoint *checkpoint, const char *name); /* NULL when absent */

/* "DIRECTORY/checkpoint-STEP.h5" into a malloc'd string. */
Status checkpoint_path(const char *directory, int64_t step, char **out);
/* Steps of all files named checkpoint-STEP.h5, ascending; *steps malloc'd. */
Status checkpoint_list(const char *directory, int64_t **steps, int64_t *count);
/* Opens the newest valid checkpoint; invalid ones are passed over with a warning that says why. *out NULL when none. */
Status checkpoint_open_newest(const char *directory, Checkpoint **out);
/* Deletes the oldest until keep remain (0 = all stay); never best_step (-1: none), never the newest. */
Status checkpoint_rotate(const char *directory, int64_t keep, int64_t best_step);

#endif
