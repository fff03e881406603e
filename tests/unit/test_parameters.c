/* The parameter store: conversions of every 16-bit pattern against formulas of their own, views, loading, decay flags. */
#include "model/decoder.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

static void expect_invalid(Status status, const char *word) {
    assert_int_equal(status_exit_code(status), STATUS_INVALID);
    if (!strstr(status_message(status), word)) fail_msg("\"%s\" lacks \"%s\"", status_message(status), word);
    status_free(status);
}

/* The value of a sign, exponent and mantissa pattern by the definition of IEEE 754. */
static double value_of(unsigned bits, int exponent_bits, int mantissa_bits) {
    int exponent = (int)(bits >> mantissa_bits & ((1u << exponent_bits) - 1)), bias = (1 << (exponent_bits - 1)) - 1;
    double mantissa = (double)(bits & ((1u << mantissa_bits) - 1)), sign = bits >> (exponent_bits + mantissa_bits) ? -1 : 1;
    if (exponent == (1 << exponent_bits) - 1) return mantissa ? NAN : sign * INFINITY;
    if (exponent == 0) return sign * ldexp(mantissa, 1 - bias - mantissa_bits);
    return sign * ldexp(mantissa + ldexp(1, mantissa_bits), exponent - bias - mantissa_bits);
}

static double reference(const char *dtype, unsigned bits) {
    return strcmp(dtype, "BF16") == 0 ? value_of(bits, 8, 7) : value_of(bits, 5, 10);
}

static void every_pattern_to_float(const char *dtype) {
    for (unsigned bits = 0; bits < 65536; ++bits) {
        uint16_t pattern = (uint16_t)bits;
        float value;
        double wanted = reference(dtype, bits);
        assert_true(convert_to_float(dtype, &pattern, 1, &value));
        if (isnan(wanted) ? !isnan(value) : value != wanted || !signbit(value) != !signbit(wanted))
            fail_msg("%s %04x: %g, expected %g", dtype, bits, value, wanted);
    }
}

static uint16_t from_float(const char *dtype, float value) {
    uint16_t bits;
    Status status = convert_from_float(&value, 1, dtype, &bits);
    if (status) fail_msg("%g: %s", value, status_message(status));
    return bits;
}

/* Every finite pattern converts to itself; between it and its neighbour away from zero the middle goes to the even one, and
 * the next float on either side of the middle to the nearer. That decides rounding everywhere. */
static void every_boundary_from_float(const char *dtype) {
    for (unsigned bits = 0; bits < 65536; ++bits) {
        double here = reference(dtype, bits), next = bits % 32768 < 32767 ? reference(dtype, bits + 1) : NAN;
        if (!isfinite(here)) continue;
        assert_int_equal(from_float(dtype, (float)here), bits);
        if (!isfinite(next)) continue;
        float middle = (float)((here + next) / 2);
        if (middle != (here + next) / 2) continue; /* below float's own resolution: bfloat16 subnormals have none finer */
        assert_int_equal(from_float(dtype, middle), bits & 1 ? bits + 1 : bits);
        assert_int_equal(from_float(dtype, nextafterf(middle, (float)here)), bits);
        assert_int_equal(from_float(dtype, nextafterf(middle, (float)next)), bits + 1);
    }
}

static void test_bfloat16(void **state) {
    (void)state;
    every_pattern_to_float("BF16");
    every_boundary_from_float("BF16");
    assert_int_equal(from_float("BF16", INFINITY), 0x7F80);
    assert_int_equal(from_float("BF16", -INFINITY), 0xFF80);
    assert_int_equal(from_float("BF16", 3.4e38f), 0x7F80); /* rounds beyond the largest finite value */
    for (uint32_t word = 0x7F800001; word < 0x7FFFFFFF; word += 0x3FFF) {
        float nan;
        memcpy(&nan, &word, sizeof nan);
        assert_true(isnan(reference("BF16", from_float("BF16", nan))));
    }
}

static void test_float16(void **state) {
    (void)state;
    uint16_t bits;
    every_pattern_to_float("F16");
    every_boundary_from_float("F16");
    assert_int_equal(from_float("F16", INFINITY), 0x7C00);
    assert_int_equal(from_float("F16", -INFINITY), 0xFC00);
    assert_true(isnan(reference("F16", from_float("F16", NAN))));
    assert_int_equal(from_float("F16", nextafterf(65520.0f, 0)), 0x7BFF);
    expect_invalid(convert_from_float(&(float){65520.0f}, 1, "F16", &bits), "65520");
    expect_invalid(convert_from_float(&(float){-1e30f}, 1, "F16", &bits), "float16");
}

static void test_names_of_dtypes(void **state) {
    (void)state;
    float value;
    assert_string_equal(safetensors_dtype_of("float32"), "F32");
    assert_string_equal(safetensors_dtype_of("bfloat16"), "BF16");
    assert_string_equal(safetensors_dtype_of("float16"), "F16");
    assert_null(safetensors_dtype_of("float8"));
    assert_false(convert_to_float("I64", &value, 1, &value));
}

typedef struct Store {
    Device *device;
    Parameters *parameters;
    Parameter *matrix, *bias, *frozen, *last;
} Store;

static void open_store(Store *s, DType dtype) {
    assert_null(device_open(BACKEND_CPU, 0, 1, &s->device));
    assert_null(parameters_create(s->device, dtype, &s->parameters));
    assert_null(parameters_add(s->parameters, "matrix", 2, (int64_t[]){7, 9}, true, true, &s->matrix));
    assert_null(parameters_add(s->parameters, "frozen", 2, (int64_t[]){4, 4}, false, true, &s->frozen));
    assert_null(parameters_add(s->parameters, "bias", 1, (int64_t[]){65}, true, false, &s->bias));
    assert_null(parameters_add(s->parameters, "last", 2, (int64_t[]){2, 32}, true, true, &s->last));
}

static void close_store(Store *s) {
    parameters_destroy(s->parameters);
    device_close(s->device);
}

static void expect_view(Tensor view, Tensor flat, const Parameter *parameter) {
    assert_ptr_equal(view.data, (char *)flat.data + parameter->offset * (int64_t)dtype_bytes(flat.dtype));
    assert_int_equal(view.dtype, flat.dtype);
    assert_int_equal(view.dimensions, parameter->dimensions);
    assert_int_equal(tensor_elements(view), parameter_elements(parameter));
}

static void test_views(void **state) {
    (void)state;
    const DType dtypes[] = {DTYPE_F32, DTYPE_BF16};
    for (int d = 0; d < 2; ++d) {
        Store s;
        open_store(&s, dtypes[d]);
        assert_null(parameters_allocate(s.parameters, true));
        const Parameters *p = s.parameters;
        assert_int_equal(s.matrix->offset, 0);
        assert_int_equal(s.bias->offset, 64); /* 63 elements, on the next multiple of 64 */
        assert_int_equal(s.last->offset, 192);
        assert_int_equal(p->flat_elements, 256);
        assert_int_equal(p->trainable_elements, 63 + 65 + 64);
        assert_int_equal(p->frozen_elements, 16);
        const Parameter *const trainable[] = {s.matrix, s.bias, s.last};
        for (int i = 0; i < 3; ++i) {
            expect_view(trainable[i]->master, p->master, trainable[i]);
            expect_view(trainable[i]->gradient, p->gradient, trainable[i]);
            expect_view(trainable[i]->exp_avg, p->exp_avg, trainable[i]);
            expect_view(trainable[i]->exp_avg_sq, p->exp_avg_sq, trainable[i]);
            expect_view(trainable[i]->value, dtypes[d] == DTYPE_F32 ? p->master : p->values, trainable[i]);
        }
        assert_null(s.frozen->master.data);
        assert_null(s.frozen->gradient.data);
        for (int64_t i = 0; i < 256; ++i)
            assert_true(((float *)p->master.data)[i] == 0 && ((float *)p->gradient.data)[i] == 0 &&
                        ((float *)p->exp_avg.data)[i] == 0 && ((float *)p->exp_avg_sq.data)[i] == 0);
        ParameterMemory memory = parameters_memory(p);
        assert_int_equal(memory.master, 1024);
        assert_int_equal(memory.gradient, 1024);
        assert_int_equal(memory.moments, 2048);
        assert_int_equal(memory.trainable_values, dtypes[d] == DTYPE_F32 ? 0 : 512);
        assert_int_equal(memory.frozen_values, 0);
        close_store(&s);
    }
}

static void test_evaluation_has_no_moments(void **state) {
    (void)state;
    Store s;
    open_store(&s, DTYPE_F32);
    assert_null(parameters_allocate(s.parameters, false));
    assert_non_null(s.parameters->master.data);
    assert_null(s.parameters->gradient.data);
    assert_null(s.matrix->gradient.data);
    assert_int_equal(parameters_memory(s.parameters).moments, 0);
    close_store(&s);
}

static void test_names_are_unique(void **state) {
    (void)state;
    Store s;
    Parameter *again;
    open_store(&s, DTYPE_F32);
    expect_invalid(parameters_add(s.parameters, "bias", 1, (int64_t[]){1}, true, false, &again), "bias is defined twice");
    assert_ptr_equal(parameters_find(s.parameters, "bias"), s.bias);
    assert_null(parameters_find(s.parameters, "bia"));
    close_store(&s);
}

/* Setting a trainable tensor fills the master exactly and the compute copy rounded; refreshing follows the master. */
static void test_masters_and_copies(void **state) {
    (void)state;
    Store s;
    float host[63], back[63];
    open_store(&s, DTYPE_BF16);
    assert_null(parameters_allocate(s.parameters, true));
    for (int i = 0; i < 63; ++i) host[i] = 1.0f + 0.001f * (float)i;
    assert_null(parameter_set(s.parameters, s.matrix, host));
    assert_null(parameter_get(s.parameters, s.matrix, back));
    assert_memory_equal(host, back, sizeof host);
    const uint16_t *values = s.matrix->value.data;
    for (int i = 0; i < 63; ++i) assert_int_equal(values[i], from_float("BF16", host[i]));
    ((float *)s.matrix->master.data)[5] = -3.0f;
    assert_int_equal(values[5], from_float("BF16", host[5]));
    assert_null(parameters_refresh_values(s.parameters));
    assert_int_equal(values[5], from_float("BF16", -3.0f));
    assert_int_equal(values[6], from_float("BF16", host[6]));
    close_store(&s);
}

/* Frozen tensors of the run's dtype stay where they are mapped; other dtypes, and trainable tensors, are converted. */
static void test_loading(void **state) {
    (void)state;
    Store s;
    _Alignas(64) uint16_t bits[65];
    float wide[16], back[65];
    open_store(&s, DTYPE_BF16);
    assert_null(parameters_allocate(s.parameters, true));
    for (int i = 0; i < 65; ++i) bits[i] = from_float("BF16", (float)i - 8);
    assert_null(parameter_load(s.parameters, s.frozen, "BF16", bits));
    assert_ptr_equal(s.frozen->value.data, bits);
    assert_int_equal(parameters_memory(s.parameters).frozen_values, 0);
    for (int i = 0; i < 16; ++i) wide[i] = 0.1f * (float)i;
    assert_null(parameter_load(s.parameters, s.frozen, "F32", wide));
    assert_int_equal(parameters_memory(s.parameters).frozen_values, 32);
    for (int i = 0; i < 16; ++i) assert_int_equal(((uint16_t *)s.frozen->value.data)[i], from_float("BF16", wide[i]));
    assert_null(parameter_load(s.parameters, s.bias, "BF16", bits));
    assert_ptr_not_equal(s.bias->value.data, bits);
    assert_null(parameter_get(s.parameters, s.bias, back));
    for (int i = 0; i < 65; ++i) assert_true(back[i] == (float)i - 8);
    for (int i = 0; i < 65; ++i) bits[i] = from_float("F16", 0.5f * (float)i);
    assert_null(parameter_load(s.parameters, s.bias, "F16", bits));
    assert_null(parameter_get(s.parameters, s.bias, back));
    for (int i = 0; i < 65; ++i) assert_true(back[i] == 0.5f * (float)i);
    expect_invalid(parameter_load(s.parameters, s.bias, "I64", bits), "bias has dtype I64");
    close_store(&s);
}

/* In the decoder: matrices and LoRA decay, biases and norms do not; patterns choose what is trained. */
static void test_decay_of_the_decoder(void **state) {
    (void)state;
    Device *device;
    Parameters *parameters;
    Decoder *decoder;
    ModelConfig config;
    const char *const patterns[] = {"layers\\.1\\.", "^model\\.norm"};
    DecoderSettings settings = {
        .lora = {.r = 4, .lora_alpha = 8}, .trainable = patterns, .trainable_count = 2};
    settings.lora.targets[Q_PROJ] = settings.lora.targets[DOWN_PROJ] = true;
    assert_null(model_config_preset("tiny", &config));
    assert_null(device_open(BACKEND_PLAN, 0, 1, &device));
    assert_null(parameters_create(device, DTYPE_F32, &parameters));
    assert_null(decoder_create(&config, &settings, parameters, true, &decoder));
    int64_t adapters = 0, elements = 0;
    for (int64_t i = 0; i < parameters->count; ++i) {
        const Parameter *parameter = parameters->items[i];
        bool adapter = strstr(parameter->name, ".lora_") != NULL;
        bool vector = strstr(parameter->name, "norm") || strstr(parameter->name, ".bias");
        assert_int_equal(parameter->decay, !vector);
        assert_int_equal(parameter->dimensions, vector ? 1 : 2);
        assert_int_equal(parameter->trainable,
                         adapter || strstr(parameter->name, "layers.1.") || strcmp(parameter->name, "model.norm.weight") == 0);
        adapters += adapter;
        if (!adapter) elements += parameter_elements(parameter);
    }
    assert_int_equal(adapters, 2 * 2 * config.num_hidden_layers);
    assert_int_equal(elements, model_config_parameters(&config));
    decoder_destroy(decoder);
    parameters_destroy(parameters);

    const char *const wrong[] = {"layers\\.9\\."};
    settings.trainable = wrong;
    settings.trainable_count = 1;
    assert_null(parameters_create(device, DTYPE_F32, &parameters));
    expect_invalid(decoder_create(&config, &settings, parameters, true, &decoder), "layers\\.9\\.");
    parameters_destroy(parameters);
    device_close(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bfloat16),
        cmocka_unit_test(test_float16),
        cmocka_unit_test(test_names_of_dtypes),
        cmocka_unit_test(test_views),
        cmocka_unit_test(test_evaluation_has_no_moments),
        cmocka_unit_test(test_names_are_unique),
        cmocka_unit_test(test_masters_and_copies),
        cmocka_unit_test(test_loading),
        cmocka_unit_test(test_decay_of_the_decoder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
