#include "tests/parity/golden.h"

#include "io/json_lines.h"
#include "io/packed_batch.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LABEL_MASKED (-100)

void expect_ok(Status status) {
    if (status) fail_msg("%s (%s)", status_message(status), status_positions(status));
}

void expect_error(Status status, int exit_code, const char *word) {
    if (status_exit_code(status) != exit_code)
        fail_msg("exit status %d, expected %d: %s", status_exit_code(status), exit_code,
                 status ? status_message(status) : "no error");
    if (!strstr(status_message(status), word)) fail_msg("\"%s\" lacks \"%s\"", status_message(status), word);
    status_free(status);
}

const char *golden_path(const char *name_of_case, const char *name) {
    static char paths[8][512];
    static int next;
    char *path = paths[next++ % 8];
    const char *moved = getenv("PARITY_DATA"); /* the program was carried to another machine */
    snprintf(path, sizeof paths[0], "%s/%s%s%s", moved ? moved : PARITY_DATA, name_of_case, name[0] ? "/" : "", name);
    return path;
}

Safetensors *golden_open(const char *name_of_case, const char *name) {
    Safetensors *file;
    expect_ok(safetensors_open(golden_path(name_of_case, name), &file));
    return file;
}

JsonValue *golden_meta(const char *name_of_case) {
    JsonValue *json;
    expect_ok(json_value_read_file(golden_path(name_of_case, "meta.json"), &json));
    return json;
}

double golden_number(const JsonValue *json, const char *path) {
    char key[64];
    const char *rest = path;
    while (json && *rest) {
        size_t length = strcspn(rest, "/");
        snprintf(key, sizeof key, "%.*s", (int)length, rest);
        json = json_value_get(json, key);
        rest += length + (rest[length] == '/');
    }
    if (!json || !json_value_is_number(json)) fail_msg("meta.json has no number %s", path);
    return json_value_number(json);
}

double *golden_values(const Safetensors *file, const char *name, int64_t n) {
    const SafetensorsEntry *entry = safetensors_find(file, name);
    if (!entry) fail_msg("the golden has no tensor %s", name);
    bool wide = strcmp(entry->dtype, "F64") == 0;
    assert_true(wide || strcmp(entry->dtype, "F32") == 0);
    int64_t count = entry->bytes / (wide ? 8 : 4);
    if (n >= 0 && count != n) fail_msg("%s has %lld values, expected %lld", name, (long long)count, (long long)n);
    double *values = malloc((size_t)count * sizeof *values + 1);
    assert_non_null(values);
    const char *data = entry->data;
    for (int64_t i = 0; i < count; ++i) {
        float narrow;
        if (wide)
            memcpy(&values[i], data + 8 * i, 8);
        else
            memcpy(&narrow, data + 4 * i, 4), values[i] = narrow;
    }
    return values;
}

double golden_scalar(const Safetensors *file, const char *name) {
    double *values = golden_values(file, name, 1), value = values[0];
    free(values);
    return value;
}

double largest_difference(const float *a, const double *b, int64_t n) {
    double largest = 0;
    for (int64_t i = 0; i < n; ++i) {
        double difference = fabs(a[i] - b[i]);
        if (!(difference <= largest)) largest = difference; /* a NaN stays */
    }
    return largest;
}

double relative_difference(const float *a, const double *b, int64_t n) {
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < n; ++i) {
        difference += (a[i] - b[i]) * (a[i] - b[i]);
        norm += b[i] * b[i];
    }
    return difference == 0 ? 0 : sqrt(difference / norm);
}

double relative_difference_f32(const float *a, const float *b, int64_t n) {
    double *wide = malloc((size_t)n * sizeof *wide + 1);
    assert_non_null(wide);
    for (int64_t i = 0; i < n; ++i) wide[i] = b[i];
    double result = relative_difference(a, wide, n);
    free(wide);
    return result;
}

void expect_below(Worst *worst, double figure, double limit, const char *name) {
    if (!(figure <= limit)) fail_msg("%s: %g, allowed %g", name, figure, limit);
    if (worst->name[0] && figure <= worst->figure) return;
    worst->figure = figure;
    snprintf(worst->name, sizeof worst->name, "%s", name);
}

void show_worst(const Worst *worst, double limit, const char *what) {
    print_message("           %s: at most %.2g of %.2g (%s)\n", what, worst->figure, limit, worst->name);
}

void expect_control_fails(double figure, double limit, const char *what) {
    print_message("           %s: %.2g, %.0f times the tolerance\n", what, figure, figure / limit);
    if (!(figure >= 100 * limit)) fail_msg("the test would hardly notice: %s", what);
}

static void append(Samples *samples, const JsonValue *record) {
    int64_t first = samples->count ? samples->ends[samples->count - 1] : 0;
    const JsonValue *ids = json_value_get(record, "input_ids"), *labels = json_value_get(record, "labels");
    int64_t n = (int64_t)json_value_size(ids), end = first + n;
    assert_int_equal(json_value_size(labels), n);
    samples->ids = realloc(samples->ids, (size_t)end * sizeof *samples->ids);
    samples->labels = realloc(samples->labels, (size_t)end * sizeof *samples->labels);
    samples->ends = realloc(samples->ends, (size_t)(samples->count + 1) * sizeof *samples->ends);
    assert_true(samples->ids && samples->labels && samples->ends);
    for (int64_t i = 0; i < n; ++i) {
        samples->ids[first + i] = (int32_t)json_value_integer(json_value_at(ids, (size_t)i));
        samples->labels[first + i] = (int32_t)json_value_integer(json_value_at(labels, (size_t)i));
    }
    samples->ends[samples->count++] = end;
}

Samples samples_read(const char *path) {
    Samples samples = {0};
    JsonLines *reader;
    JsonValue *record;
    expect_ok(json_lines_open(path, &reader));
    for (expect_ok(json_lines_next_object(reader, &record)); record; expect_ok(json_lines_next_object(reader, &record))) {
        append(&samples, record);
        json_value_free(record);
    }
    json_lines_close(reader);
    return samples;
}

void samples_free(Samples *samples) {
    free(samples->ids);
    free(samples->labels);
    free(samples->ends);
    *samples = (Samples){0};
}

int64_t samples_first_token(const Samples *samples, int64_t index) { return index ? samples->ends[index - 1] : 0; }

int64_t samples_label_tokens(const Samples *samples) {
    int64_t count = 0;
    for (int64_t s = 0; s < samples->count; ++s)
        for (int64_t t = samples_first_token(samples, s) + 1; t < samples->ends[s]; ++t)
            count += samples->labels[t] != LABEL_MASKED;
    return count;
}
