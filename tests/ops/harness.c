#include "tests/ops/harness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

#ifdef ADAMEM_CUDA_ON_HOST /* shortened shapes; the address sanitizer marks every byte of every arena */
enum { ARENA_BYTES = 32 << 20 };
#else
enum { ARENA_BYTES = 256 << 20 };
#endif
enum { GUARD_BYTES = 64, GUARD_VALUE = 0x5a };

static uint64_t next_random(Run *run) { /* splitmix64 */
    uint64_t z = run->random += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

double run_uniform(Run *run) { return (double)(next_random(run) >> 11) * 0x1p-53; }

int64_t shape_tokens(const Shape *shape) {
    int64_t tokens = 0;
    for (int s = 0; s < MAX_SEQUENCES && shape->lengths[s]; ++s) tokens += shape->lengths[s];
    return tokens;
}

double round_to(DType dtype, double x) {
    float f = (float)x;
    if (dtype == DTYPE_F32) return (double)f;
    if (dtype != DTYPE_BF16 || !isfinite(f)) return x;
    int exponent;
    double mantissa = frexp((double)f, &exponent); /* 8 significant bits, ties to even as rint does */
    return ldexp(rint(ldexp(mantissa, 8)), exponent - 8);
}

void run_succeeds(Run *run, Status status) {
    if (!status) return;
    print_error("%s: %s (%s)\n", run->label, status_message(status), status_positions(status));
    status_free(status);
    fail();
}

/* ---- conversion between doubles and storage ---- */

static void encode(DType dtype, void *to, int64_t i, double x) {
    float f = (float)x;
    uint32_t bits;
    switch (dtype) {
    case DTYPE_F64: ((double *)to)[i] = x; break;
    case DTYPE_F32: ((float *)to)[i] = f; break;
    case DTYPE_I32: ((int32_t *)to)[i] = (int32_t)x; break;
    case DTYPE_I64: ((int64_t *)to)[i] = (int64_t)x; break;
    case DTYPE_U8: ((uint8_t *)to)[i] = (uint8_t)x; break;
    case DTYPE_BF16:
        memcpy(&bits, &f, sizeof bits);
        ((uint16_t *)to)[i] = (uint16_t)(bits >> 16); /* exact: the value was rounded before */
        break;
    }
}

static double decode(DType dtype, const void *from, int64_t i) {
    uint32_t bits;
    float f;
    switch (dtype) {
    case DTYPE_F64: return ((const double *)from)[i];
    case DTYPE_F32: return (double)((const float *)from)[i];
    case DTYPE_I32: return (double)((const int32_t *)from)[i];
    case DTYPE_I64: return (double)((const int64_t *)from)[i];
    case DTYPE_U8: return (double)((const uint8_t *)from)[i];
    case DTYPE_BF16:
        bits = (uint32_t)((const uint16_t *)from)[i] << 16;
        memcpy(&f, &bits, sizeof f);
        return (double)f;
    }
    return NAN;
}

/* ---- operands ---- */

static Value *new_value(Run *run, DType dtype, int dimensions, const int64_t *shape) {
    assert_true(run->count < MAX_VALUES);
    Value *value = &run->values[run->count++];
    *value = (Value){.tensor = {.dtype = dtype, .dimensions = dimensions, .shape = {1, 1, 1, 1}}};
    for (int i = 0; i < dimensions; ++i) value->tensor.shape[i] = shape[i];
    value->host = calloc((size_t)tensor_elements(value->tensor) + 1, sizeof(double));
    run_succeeds(run, device_allocate(run->device, tensor_bytes(value->tensor) + GUARD_BYTES, &value->tensor.data));
    return value;
}

/* Under the address sanitizer an op that even reads the guard is caught, where device memory is host memory. */
static void forbid_guard(const Run *run, const Value *value, bool forbidden) {
    (void)run, (void)value, (void)forbidden;
#ifdef __SANITIZE_ADDRESS__
#ifndef ADAMEM_CUDA_ON_HOST
    if (!device_is_host(run->device)) return;
#endif
    char *guard = (char *)value->tensor.data + tensor_bytes(value->tensor);
    if (forbidden)
        __asan_poison_memory_region(guard, GUARD_BYTES);
    else
        __asan_unpoison_memory_region(guard, GUARD_BYTES);
#endif
}

static void upload(Run *run, const Value *value, const void *content) {
    size_t bytes = tensor_bytes(value->tensor);
    forbid_guard(run, value, false);
    char *staging = malloc(bytes + GUARD_BYTES);
    memcpy(staging, content, bytes);
    memset(staging + bytes, GUARD_VALUE, GUARD_BYTES);
    run_succeeds(run, device_upload(run->device, value->tensor.data, staging, bytes + GUARD_BYTES));
    forbid_guard(run, value, true);
    free(staging);
}

static void upload_host(Run *run, const Value *value) {
    int64_t count = tensor_elements(value->tensor);
    void *content = malloc(tensor_bytes(value->tensor) + 1);
    for (int64_t i = 0; i < count; ++i) encode(value->tensor.dtype, content, i, value->host[i]);
    upload(run, value, content);
    free(content);
}

Value run_values(Run *run, DType dtype, int dimensions, const int64_t *shape, const double *host) {
    Value *value = new_value(run, dtype, dimensions, shape);
    for (int64_t i = 0; i < tensor_elements(value->tensor); ++i) value->host[i] = round_to(dtype, host[i]);
    upload_host(run, value);
    return *value;
}

Value run_random(Run *run, DType dtype, int dimensions, const int64_t *shape, double scale) {
    Value *value = new_value(run, dtype, dimensions, shape);
    for (int64_t i = 0; i < tensor_elements(value->tensor); ++i) {
        double sum = run_uniform(run) + run_uniform(run) + run_uniform(run) + run_uniform(run) - 2.0;
        value->host[i] = round_to(dtype, scale * sum * 1.7320508);
    }
    upload_host(run, value);
    return *value;
}

Value run_poisoned(Run *run, DType dtype, int dimensions, const int64_t *shape) {
    Value *value = new_value(run, dtype, dimensions, shape);
    void *content = malloc(tensor_bytes(value->tensor) + 1);
    memset(content, 0xff, tensor_bytes(value->tensor));
    upload(run, value, content);
    free(content);
    for (int64_t i = 0; i < tensor_elements(value->tensor); ++i) value->host[i] = NAN;
    return *value;
}

Tensor run_indices(Run *run, const int32_t *host, int64_t count) {
    Value *value = new_value(run, DTYPE_I32, 1, &count);
    for (int64_t i = 0; i < count; ++i) value->host[i] = host[i];
    upload_host(run, value);
    return value->tensor;
}

/* ---- the run ---- */

static int32_t *keep_indices(Run *run, int64_t count) {
    return run->host_indices[run->index_count++] = calloc((size_t)count + 1, sizeof(int32_t));
}

static void make_layout(Run *run, const Shape *shape) {
    int64_t tokens = shape_tokens(shape), sequences = 0;
    while (sequences < MAX_SEQUENCES && shape->lengths[sequences]) ++sequences;
    int32_t *offsets = keep_indices(run, sequences + 1), *positions = keep_indices(run, tokens);
    int32_t *samples = keep_indices(run, tokens);
    run->layout = (SequenceLayout){.tokens = tokens, .sequences = sequences, .host_offsets = offsets};
    for (int64_t s = 0; s < sequences; ++s) {
        offsets[s + 1] = offsets[s] + shape->lengths[s];
        if (shape->lengths[s] > run->layout.longest) run->layout.longest = shape->lengths[s];
        for (int32_t i = 0; i < shape->lengths[s]; ++i) {
            positions[offsets[s] + i] = i;
            samples[offsets[s] + i] = (int32_t)(1000 + 17 * s);
        }
    }
    run->layout.offsets = run_indices(run, offsets, sequences + 1).data;
    run->layout.positions = run_indices(run, positions, tokens).data;
    run->layout.sample_of_token = run_indices(run, samples, tokens).data;
}

void run_open(Run *run, Device *device, const char *label, const Shape *shape, bool compare) {
    *run = (Run){.device = device, .label = label, .compare = compare, .random = 42, .transcript = 1469598103934665603u};
    run_succeeds(run, arena_create(device, ARENA_BYTES, &run->arena));
    make_layout(run, shape);
}

static void check_guard(Run *run, const Value *value) {
    size_t bytes = tensor_bytes(value->tensor);
    unsigned char *content = malloc(bytes + GUARD_BYTES);
    forbid_guard(run, value, false);
    run_succeeds(run, device_download(run->device, content, value->tensor.data, bytes + GUARD_BYTES));
    for (size_t i = 0; i < GUARD_BYTES; ++i)
        if (content[bytes + i] != GUARD_VALUE) fail_msg("%s: a write past the end of an operand of %zu bytes", run->label, bytes);
    free(content);
}

void run_close(Run *run) {
    for (int i = 0; i < run->count; ++i) {
        check_guard(run, &run->values[i]);
        device_release(run->device, run->values[i].tensor.data);
        free(run->values[i].host);
    }
    for (int i = 0; i < run->index_count; ++i) free(run->host_indices[i]);
    if (arena_used(run->arena) != 0) fail_msg("%s: scratch was not released", run->label);
    arena_destroy(run->arena);
}

double *run_read(Run *run, Tensor tensor) {
    size_t bytes = tensor_bytes(tensor);
    unsigned char *content = malloc(bytes + 1);
    run_succeeds(run, device_download(run->device, content, tensor.data, bytes));
    for (size_t i = 0; i < bytes; ++i) run->transcript = (run->transcript ^ content[i]) * 1099511628211u; /* FNV-1a */
    int64_t count = tensor_elements(tensor);
    double *values = malloc(((size_t)count + 1) * sizeof *values);
    for (int64_t i = 0; i < count; ++i) values[i] = decode(tensor.dtype, content, i);
    free(content);
    return values;
}

static void record(Recording *recording, double value) {
    if (recording->count == recording->room) {
        recording->room = recording->room ? 2 * recording->room : 1024;
        recording->values = realloc(recording->values, recording->room * sizeof *recording->values);
    }
    recording->values[recording->count++] = value;
}

/* Both are within `allowed` of the exact value, so they are within twice that of each other; in BF16 they may also be the two
 * neighbours of a value that lies between. */
static void compare_with_recording(const Run *run, DType dtype, double got, double expected, double allowed, const char *what,
                                   int64_t row, int64_t column) {
    Recording *recording = run->recording;
    const double limit = fmax(2 * allowed, dtype == DTYPE_BF16 ? 0x1p-7 * fabs(got) : 0);
    if (recording->next >= recording->count) fail_msg("%s: more results than on the other backend", run->label);
    const double other = recording->values[recording->next++] + (run->from_own ? expected : 0);
    if (!(fabs(got - other) <= limit) && !(got == other))
        fail_msg("%s: %s[%lld, %lld] is %.9g, on the CPU %.9g, allowed difference %.3g", run->label, what, (long long)row,
                 (long long)column, got, other, limit);
}

void run_expect(Run *run, Value value, const double *expected, Tolerance tolerance, const char *what) {
    double *got = run_read(run, value.tensor);
    Tensor rows = tensor_as_rows(value.tensor);
    const bool recording = run->recording && !run->recording->replay;
    for (int64_t r = 0; (run->compare || recording) && r < rows.shape[0]; ++r) {
        const double *e = expected + r * rows.shape[1], *g = got + r * rows.shape[1];
        double largest = 0;
        for (int64_t i = 0; i < rows.shape[1]; ++i) largest = fmax(largest, fabs(e[i]));
        for (int64_t i = 0; i < rows.shape[1]; ++i) {
            if (recording) record(run->recording, run->from_own ? g[i] - e[i] : g[i]);
            if (!run->compare) continue;
            double allowed = tolerance.relative * fabs(e[i]) + tolerance.of_row * largest + tolerance.absolute;
            if (allowed > 0) run->worst = fmax(run->worst, fabs(g[i] - e[i]) / allowed);
            if (!(fabs(g[i] - e[i]) <= allowed)) /* NaN fails */
                fail_msg("%s: %s[%lld, %lld] is %.9g, expected %.9g, allowed error %.3g", run->label, what, (long long)r,
                         (long long)i, g[i], e[i], allowed);
            if (run->recording) compare_with_recording(run, value.tensor.dtype, g[i], e[i], allowed, what, r, i);
        }
    }
    free(got);
}

Tolerance one_rounding(DType dtype) {
    return dtype == DTYPE_BF16 ? (Tolerance){0x1.02p-8, 1e-5, 1e-30} : (Tolerance){0, 1e-5, 1e-30};
}

Tolerance stored_in(DType dtype, double of_row) {
    return dtype == DTYPE_BF16 ? (Tolerance){0x1.02p-8, of_row * 0x1p-7, 1e-30} : (Tolerance){0, 1e-5, 1e-30};
}
