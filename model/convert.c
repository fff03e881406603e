/* Conversions between fp32 and the storage formats of weights. */
#include "model/parameters.h"

#include <math.h>
#include <string.h>

static float float_from_bf16(uint16_t bits) {
    uint32_t word = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &word, sizeof value);
    return value;
}

/* IEEE 754 binary16, subnormals included. */
static float float_from_f16(uint16_t bits) {
    uint32_t sign = (uint32_t)(bits & 0x8000u) << 16, exponent = bits >> 10 & 31u, mantissa = bits & 1023u, word;
    if (exponent == 0) {
        float value = (float)mantissa * 0x1p-24f;
        return sign ? -value : value;
    }
    if (exponent == 31)
        word = sign | 0x7F800000u | mantissa << 13;
    else
        word = sign | (exponent + 112) << 23 | mantissa << 13;
    float value;
    memcpy(&value, &word, sizeof value);
    return value;
}

bool convert_to_float(const char *dtype, const void *data, int64_t n, float *out) {
    if (strcmp(dtype, "F32") == 0) {
        memcpy(out, data, (size_t)n * sizeof *out);
        return true;
    }
    bool bf16 = strcmp(dtype, "BF16") == 0;
    if (!bf16 && strcmp(dtype, "F16") != 0) return false;
    const unsigned char *bytes = data;
    for (int64_t i = 0; i < n; ++i) {
        uint16_t bits;
        memcpy(&bits, bytes + 2 * i, sizeof bits);
        out[i] = bf16 ? float_from_bf16(bits) : float_from_f16(bits);
    }
    return true;
}

static uint16_t bf16_from_float(float value) {
    uint32_t word;
    memcpy(&word, &value, sizeof word);
    if ((word & 0x7FFFFFFFu) > 0x7F800000u) return (uint16_t)(word >> 16 | 0x40u); /* NaN stays NaN */
    return (uint16_t)((word + 0x7FFFu + (word >> 16 & 1u)) >> 16);
}

static uint16_t f16_from_float(float value) {
    uint16_t sign = signbit(value) ? 0x8000u : 0;
    float magnitude = fabsf(value);
    if (isnan(value)) return sign | 0x7E00u;
    if (magnitude >= 65520.0f) return sign | 0x7C00u;
    if (magnitude < 0x1p-14f) return sign | (uint16_t)lrintf(magnitude * 0x1p24f); /* subnormal, or rounds to the first normal */
    uint32_t word;
    memcpy(&word, &magnitude, sizeof word);
    word += 0xFFFu + (word >> 13 & 1u);
    return sign | (uint16_t)((word >> 13) - (112u << 10));
}

Status convert_from_float(const float *values, int64_t n, const char *dtype, void *out) {
    if (strcmp(dtype, "F32") == 0) {
        memcpy(out, values, (size_t)n * sizeof *values);
        return STATUS_OK;
    }
    uint16_t *bits = out;
    bool half = strcmp(dtype, "F16") == 0;
    for (int64_t i = 0; i < n; ++i) {
        if (half && fabsf(values[i]) >= 65520.0f && isfinite(values[i])) INVALID("the value %g does not fit float16", values[i]);
        bits[i] = half ? f16_from_float(values[i]) : bf16_from_float(values[i]);
    }
    return STATUS_OK;
}

const char *safetensors_dtype_of(const char *torch_dtype) {
    static const char *const names[][2] = {{"float32", "F32"}, {"bfloat16", "BF16"}, {"float16", "F16"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; ++i)
        if (strcmp(names[i][0], torch_dtype) == 0) return names[i][1];
    return NULL;
}
