/* Reading the committed goldens: tests/parity/data/CASE (README.md beside this file says what is in them). */
#ifndef TESTS_PARITY_GOLDEN_H
#define TESTS_PARITY_GOLDEN_H

#include "io/json_value.h"
#include "io/safetensors.h"

/* Fails the test with the status' message; frees it. */
void expect_ok(Status status);
/* The status must have this exit code and mention word; freed. */
void expect_error(Status status, int exit_code, const char *word);

/* DATA/CASE/NAME (DATA: that of the source, or the environment's PARITY_DATA) in a static ring of buffers: valid for the next
 * eight calls. */
const char *golden_path(const char *name_of_case, const char *name);
Safetensors *golden_open(const char *name_of_case, const char *name);
JsonValue *golden_meta(const char *name_of_case);
/* Number at a path of keys: "lora/controls/rope_theta_x10/loss_abs". */
double golden_number(const JsonValue *json, const char *path);
/* Values of an F64 or F32 tensor, as double; malloc'd. n: how many there must be, -1: any. */
double *golden_values(const Safetensors *file, const char *name, int64_t n);
double golden_scalar(const Safetensors *file, const char *name);

/* max |a - b|, NaN if any difference is; ||a - b|| / ||b||. */
double largest_difference(const float *a, const double *b, int64_t n);
double relative_difference(const float *a, const double *b, int64_t n);
double relative_difference_f32(const float *a, const float *b, int64_t n);
/* The worst of many figures that share a limit; each must be below it. Zero-initialise; show at the end of the test. */
typedef struct Worst {
    double figure;
    char name[160];
} Worst;
void expect_below(Worst *worst, double figure, double limit, const char *name);
void show_worst(const Worst *worst, double limit, const char *what);
/* The opposite, for wrong programs: at least a hundred times the limit. */
void expect_control_fails(double figure, double limit, const char *what);

/* Samples of format tokens, laid end to end. */
typedef struct Samples {
    int32_t *ids, *labels; /* [ends[count - 1]] */
    int64_t *ends;         /* [count] */
    int64_t count;
} Samples;
Samples samples_read(const char *path);
void samples_free(Samples *samples);
int64_t samples_first_token(const Samples *samples, int64_t index);
/* Labels that count: position 0 does not. */
int64_t samples_label_tokens(const Samples *samples);

#endif
