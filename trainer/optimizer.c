#include "trainer/optimizer.h"

#include "io/pattern.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Elements [first, first + count) of the flat arrays with one learning rate and one decay. */
typedef struct Run {
    int64_t first, count;
    double learning_rate, weight_decay;
} Run;

struct Optimizer {
    const Options *options;
    Parameters *parameters;
    Arena *scratch;
    Run *runs;
    int64_t run_count;
    Tensor sum; /* [1] F64 */
};

typedef struct Groups {
    Pattern **patterns;
    bool *used;
    int64_t count;
} Groups;

static void groups_free(Groups *groups) {
    for (int64_t i = 0; i < groups->count; ++i) pattern_free(groups->patterns[i]);
    free(groups->patterns);
    free(groups->used);
}

static const ParameterGroup *group_at(const Options *options, int64_t i) {
    return (const ParameterGroup *)options->training.parameter_groups.items + i;
}

static Status groups_compile(const Options *options, Groups *groups) {
    int64_t count = options->training.parameter_groups.count;
    if (count == 0) return STATUS_OK;
    TRY_ALLOC(groups->patterns = calloc((size_t)count, sizeof *groups->patterns));
    TRY_ALLOC(groups->used = calloc((size_t)count, sizeof *groups->used));
    for (int64_t i = 0; i < count; ++i) {
        TRY(pattern_compile(group_at(options, i)->pattern, PATTERN_SEARCH, "training.parameter_groups", &groups->patterns[i]));
        groups->count = i + 1;
    }
    return STATUS_OK;
}

static Run run_of(const Options *options, Groups *groups, const Parameter *parameter) {
    Run run = {.learning_rate = options->training.learning_rate,
               .weight_decay = parameter->decay ? options->training.weight_decay : 0.0};
    if (options_have_memory(options) && strncmp(parameter->name, "memory.", 7) != 0)
        run.learning_rate = options->adamem.unfreeze_learning_rate;
    for (int64_t i = 0; i < groups->count; ++i) {
        if (!pattern_matches(groups->patterns[i], parameter->name)) continue;
        groups->used[i] = true;
        run.learning_rate = group_at(options, i)->learning_rate;
        run.weight_decay = parameter->decay ? group_at(options, i)->weight_decay : 0.0;
        break;
    }
    return run;
}

/* Gaps of alignment hold zeros in all arrays and stay zero under every setting, so a run may span them. */
static Status form_runs(Optimizer *optimizer, Groups *groups) {
    Parameters *parameters = optimizer->parameters;
    TRY_ALLOC(optimizer->runs = calloc((size_t)parameters->count + 1, sizeof *optimizer->runs));
    for (int64_t i = 0; i < parameters->count; ++i) {
        const Parameter *parameter = parameters->items[i];
        if (!parameter->trainable) continue;
        Run run = run_of(optimizer->options, groups, parameter);
        run.first = parameter->offset;
        Run *last = optimizer->run_count ? &optimizer->runs[optimizer->run_count - 1] : NULL;
        if (!last || last->learning_rate != run.learning_rate || last->weight_decay != run.weight_decay) {
            optimizer->runs[optimizer->run_count++] = run;
            last = &optimizer->runs[optimizer->run_count - 1];
        }
        last->count = parameter->offset + parameter_elements(parameter) - last->first;
    }
    for (int64_t i = 0; i < groups->count; ++i)
        if (!groups->used[i])
            INVALID("training.parameter_groups: \"%s\" matches no trainable tensor", group_at(optimizer->options, i)->pattern);
    return STATUS_OK;
}

Status optimizer_create(const Options *options, Parameters *parameters, Arena *scratch, Optimizer **out) {
    Optimizer *optimizer;
    TRY_ALLOC(optimizer = calloc(1, sizeof *optimizer));
    *optimizer = (Optimizer){.options = options, .parameters = parameters, .scratch = scratch};
    optimizer->sum = tensor_1d(NULL, DTYPE_F64, 1);
    Groups groups = {0};
    Status status = groups_compile(options, &groups);
    if (!status) status = form_runs(optimizer, &groups);
    groups_free(&groups);
    if (!status) status = device_allocate(parameters->device, sizeof(double), &optimizer->sum.data);
    if (status)
        optimizer_destroy(optimizer);
    else
        *out = optimizer;
    return status;
}

void optimizer_destroy(Optimizer *optimizer) {
    if (!optimizer) return;
    device_release(optimizer->parameters->device, optimizer->sum.data);
    free(optimizer->runs);
    free(optimizer);
}

Status optimizer_grad_norm(Optimizer *optimizer, double *norm) {
    Device *device = optimizer->parameters->device;
    double sum = 0;
    TRY(device->ops->sum_squares(device, optimizer->scratch, optimizer->sum, optimizer->parameters->gradient));
    TRY(device_download(device, &sum, optimizer->sum.data, sizeof sum));
    *norm = sqrt(sum);
    return STATUS_OK;
}

static Tensor slice(Tensor flat, const Run *run) {
    if (!flat.data) return tensor_absent();
    char *base = flat.data;
    return tensor_1d(base + run->first * (int64_t)dtype_bytes(flat.dtype), flat.dtype, run->count);
}

Status optimizer_step(Optimizer *optimizer, int64_t update, double factor, double grad_norm) {
    const Parameters *p = optimizer->parameters;
    double limit = optimizer->options->training.max_grad_norm, scale = 1.0;
    if (limit > 0 && limit / (grad_norm + 1e-6) < 1.0) scale = limit / (grad_norm + 1e-6);
    for (int64_t i = 0; i < optimizer->run_count; ++i) {
        const Run *run = &optimizer->runs[i];
        AdamWSettings settings = {.learning_rate = (float)(run->learning_rate * factor),
                                  .beta1 = optimizer->options->training.adam_beta1,
                                  .beta2 = optimizer->options->training.adam_beta2,
                                  .epsilon = (float)optimizer->options->training.adam_epsilon,
                                  .weight_decay = (float)run->weight_decay,
                                  .gradient_scale = (float)scale,
                                  .update = update};
        TRY(p->device->ops->adamw(p->device, slice(p->master, run), slice(p->exp_avg, run), slice(p->exp_avg_sq, run),
                                  slice(p->values, run), slice(p->gradient, run), settings));
    }
    return STATUS_OK;
}
