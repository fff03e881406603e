#include "trainer/prediction_log.h"

#include "io/log.h"

#include <stdio.h>

enum { SAMPLES = 3, SAMPLE_BYTES = 300, LINE_BYTES = 120 };

static int64_t sample_count(const Predictions *p) { return p->count < SAMPLES ? p->count : SAMPLES; }

static bool inside_character(char byte) { return ((unsigned char)byte & 0xC0) == 0x80; }

/* At most `most` bytes of it, whole characters, and "..." where something is missing. */
static Status shorten(MetricText text, size_t most, Text *out) {
    size_t length = text.length;
    text_clear(out);
    if (length > most)
        for (length = most; length > 0 && inside_character(text.bytes[length]);) --length;
    TRY(text_append(out, text.bytes, length));
    return text_append_string(out, length < text.length ? "..." : "");
}

static MetricText first_reference(const Predictor *predictor, int64_t i) {
    const ExampleList *list = &predictor_examples(predictor)->list;
    MetricText text;
    text.bytes = example_list_reference(list, list->items[i].first_reference, &text.length);
    return text;
}

static Status set_shortened(JsonValue *object, const char *key, MetricText text, Text *scratch) {
    JsonValue *value;
    TRY(shorten(text, SAMPLE_BYTES, scratch));
    TRY_ALLOC(value = json_value_new_string(scratch->data, scratch->length));
    return json_value_set(object, key, value);
}

static Status append_sample(const Predictor *predictor, const Predictions *p, int64_t i, JsonValue *samples, Text *scratch) {
    JsonValue *object;
    TRY_ALLOC(object = json_value_new_object());
    TRY(json_value_append(samples, object));
    TRY(json_value_set_integer(object, "index", i));
    TRY(set_shortened(object, "prediction", p->texts[i], scratch));
    return set_shortened(object, "reference", first_reference(predictor, i), scratch);
}

static double mean_length(const Predictions *p) { return (double)p->statistics.new_tokens / (double)p->count; }

Status prediction_log_fill(const Predictor *predictor, const Predictions *p, JsonValue *object) {
    const MetricList *metrics = predictor_metrics(predictor);
    const GenerationStatistics *s = &p->statistics;
    char name[64];
    for (int m = 0; m < metrics->count; ++m) {
        snprintf(name, sizeof name, "eval_%s", metric_name(metrics->metrics[m]));
        TRY(json_value_set_number(object, name, p->means[m]));
    }
    TRY(json_value_set_number(object, "eval_gen_len", mean_length(p)));
    TRY(json_value_set_number(object, "eval_generation_runtime", s->seconds));
    TRY(json_value_set_number(object, "eval_generation_tokens_per_second",
                              s->seconds > 0 ? (double)s->new_tokens / s->seconds : 0.0));
    JsonValue *samples;
    Text scratch = {0};
    TRY_ALLOC(samples = json_value_new_array());
    TRY(json_value_set(object, "samples", samples));
    Status status = STATUS_OK;
    for (int64_t i = 0; i < sample_count(p) && !status; ++i) status = append_sample(predictor, p, i, samples, &scratch);
    text_free(&scratch);
    return status;
}

static Status one_line(MetricText text, Text *out) {
    TRY(shorten(text, LINE_BYTES, out));
    for (size_t i = 0; i < out->length; ++i)
        if ((unsigned char)out->data[i] < ' ') out->data[i] = ' ';
    return STATUS_OK;
}

Status prediction_log_tell(const Predictor *predictor, const Predictions *p, int64_t step) {
    const MetricList *metrics = predictor_metrics(predictor);
    Text line = {0}, prediction = {0}, reference = {0};
    Status status = STATUS_OK;
    for (int m = 0; m < metrics->count && !status; ++m)
        status = text_append_format(&line, "eval_%s %.4f, ", metric_name(metrics->metrics[m]), p->means[m]);
    if (!status) status = text_append_format(&line, "eval_gen_len %.1f", mean_length(p));
    if (!status) log_info("step %lld: %s", (long long)step, line.data);
    for (int64_t i = 0; i < sample_count(p) && !status; ++i) {
        status = one_line(p->texts[i], &prediction);
        if (!status) status = one_line(first_reference(predictor, i), &reference);
        if (!status) log_info("  %lld predicted: %s\n    reference: %s", (long long)i, prediction.data, reference.data);
    }
    text_free(&line);
    text_free(&prediction);
    text_free(&reference);
    return status;
}
