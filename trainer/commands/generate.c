/* adamem generate: continues prompts, JSON lines in, JSON lines out, order kept, on all ranks. */
#include "trainer/commands/commands.h"

#include "io/file.h"
#include "io/log.h"
#include "trainer/commands/command_line.h"
#include "trainer/commands/prompt_lines.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "Usage: adamem generate --model DIR [--adapter DIR] --input FILE [--output FILE] [options]\n"
    "       adamem generate --checkpoint PATH [--model DIR] --input FILE [--output FILE] [options]\n"
    "\n"
    "Lines {\"prompt\": \"raw text\"}, {\"messages\": [{\"role\", \"content\"}]} (chat template) or {\"input_ids\": [...]} "
    "become lines\n"
    "{\"text\", \"ids\", \"prompt_tokens\", \"new_tokens\", \"finish_reason\"} in the same order. ids are the new tokens with "
    "the EOS; text\n"
    "is without special tokens and ends in front of a stop string; finish_reason is eos, stop or length. Generation ends at\n"
    "any EOS of generation_config.json, config.json or the tokenizer. A result depends neither on the batch size nor on the\n"
    "number of ranks.\n"
    "\n"
    "  --model DIR              model directory; beside --checkpoint, overrides the base model's path\n"
    "  --adapter DIR            PEFT adapter directory\n"
    "  --checkpoint PATH        trained tensors and the configuration of their run\n"
    "  --input FILE             JSON lines, plain, .gz or .zst; - is standard input\n"
    "  --output FILE            written whole at the end; - (default) is standard output\n"
    "  --max-new-tokens N       most new tokens per prompt (default 256)\n"
    "  --temperature T          0 (default): greedy, the likeliest token; else sampling\n"
    "  --top-p P                sample from the likeliest tokens that reach the probability P (default 1: off)\n"
    "  --top-k K                sample from the K likeliest tokens (default 0: off)\n"
    "  --repetition-penalty P   above 1: tokens of prompt and continuation become less likely (default 1: off)\n"
    "  --stop STRING            ends a continuation; may be given again for more of them\n"
    "  --seed N                 of the sampling (default 42)\n"
    "  --batch-size N           most prompts at once (default 32)\n"
    "  --dtype TYPE             float32 or bfloat16 (default: as the checkpoint's run, else bfloat16)\n"
    "  --set KEY=VALUE          overrides a configuration key, for example run.threads or run.backend\n"
    "  --help                   this text\n";

enum { MOST_BATCH = 4096 };

typedef struct Arguments {
    TextModelArguments model;
    const char *input, *output;
    SamplingSettings sampling;
    long long max_new_tokens, top_k, seed, batch_size;
    ConfigArguments sets;
    const char **stops;
    int64_t stop_count;
    bool help;
} Arguments;

static Status take_option(int character, Arguments *a) {
    switch (character) {
    case 'm': a->model.model = optarg; return STATUS_OK;
    case 'a': a->model.adapter = optarg; return STATUS_OK;
    case 'k': a->model.checkpoint = optarg; return STATUS_OK;
    case 'D': a->model.dtype = optarg; return STATUS_OK;
    case 'i': a->input = optarg; return STATUS_OK;
    case 'o': a->output = optarg; return STATUS_OK;
    case 's': a->sets.sets[a->sets.count++] = optarg; return STATUS_OK;
    case 'X': a->stops[a->stop_count++] = optarg; return STATUS_OK;
    case 'n': return command_line_count("generate", "max-new-tokens", optarg, INT32_MAX, &a->max_new_tokens);
    case 'K': return command_line_count("generate", "top-k", optarg, INT32_MAX, &a->top_k);
    case 'S': return command_line_count("generate", "seed", optarg, INT64_MAX, &a->seed);
    case 'b': return command_line_count("generate", "batch-size", optarg, MOST_BATCH, &a->batch_size);
    case 'T': return command_line_number("generate", "temperature", optarg, &a->sampling.temperature);
    case 'P': return command_line_number("generate", "top-p", optarg, &a->sampling.top_p);
    case 'R': return command_line_number("generate", "repetition-penalty", optarg, &a->sampling.repetition_penalty);
    default: a->help = true; return STATUS_OK;
    }
}

static Status check_arguments(Arguments *a) {
    TRY(text_model_check(&a->model, "generate"));
    if (!a->input) INVALID("generate: give --input FILE");
    if (a->max_new_tokens < 1) INVALID("generate: --max-new-tokens must be at least 1");
    if (a->batch_size < 1) INVALID("generate: --batch-size must be at least 1");
    for (int64_t i = 0; i < a->stop_count; ++i)
        if (!a->stops[i][0]) INVALID("generate: --stop is empty");
    a->sampling.top_k = a->top_k;
    a->model.sets = a->sets.sets;
    a->model.set_count = a->sets.count;
    return status_prefix(sampling_check(&a->sampling), "generate");
}

static Status parse_arguments(int argc, char **argv, Arguments *out) {
    static const struct option options[] = {{"model", required_argument, NULL, 'm'},
                                            {"adapter", required_argument, NULL, 'a'},
                                            {"checkpoint", required_argument, NULL, 'k'},
                                            {"dtype", required_argument, NULL, 'D'},
                                            {"input", required_argument, NULL, 'i'},
                                            {"output", required_argument, NULL, 'o'},
                                            {"max-new-tokens", required_argument, NULL, 'n'},
                                            {"temperature", required_argument, NULL, 'T'},
                                            {"top-p", required_argument, NULL, 'P'},
                                            {"top-k", required_argument, NULL, 'K'},
                                            {"repetition-penalty", required_argument, NULL, 'R'},
                                            {"stop", required_argument, NULL, 'X'},
                                            {"seed", required_argument, NULL, 'S'},
                                            {"batch-size", required_argument, NULL, 'b'},
                                            {"set", required_argument, NULL, 's'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    *out = (Arguments){.sampling = sampling_defaults(), .output = "-", .max_new_tokens = 256, .seed = 42, .batch_size = 32};
    TRY(config_arguments_create(argc, &out->sets));
    TRY_ALLOC(out->stops = calloc((size_t)argc + 1, sizeof *out->stops));
    optind = 0;
    for (int character = 0;;) {
        TRY(command_line_next(argc, argv, options, &character));
        if (character == -1) break;
        TRY(take_option(character, out));
        if (out->help) return STATUS_OK;
    }
    return check_arguments(out);
}

/* ---- results ---- */

static Status fill_result(const Generation *generation, const TextModel *model, const GenerationResult *result, Text *scratch,
                          JsonValue *object) {
    JsonValue *ids, *text;
    if (model->tokenizer) {
        text_clear(scratch);
        TRY(generation_text(generation, model->tokenizer, result, scratch));
        TRY_ALLOC(text = json_value_new_string(scratch->data ? scratch->data : "", scratch->length));
    } else {
        TRY_ALLOC(text = json_value_new_null());
    }
    TRY(json_value_set(object, "text", text));
    TRY_ALLOC(ids = json_value_new_array());
    TRY(json_value_set(object, "ids", ids));
    for (int64_t i = 0; i < result->count; ++i) TRY(json_value_append(ids, json_value_new_integer(result->ids[i])));
    TRY(json_value_set_integer(object, "prompt_tokens", result->prompt_tokens));
    TRY(json_value_set_integer(object, "new_tokens", result->count));
    return json_value_set_string(object, "finish_reason", generation_finish_names[result->finish]);
}

static Status append_results(const Generation *generation, const TextModel *model, const GeneratedList *generated, Text *out) {
    Text scratch = {0};
    Status status = STATUS_OK;
    for (int64_t i = 0; i < generated->count && !status; ++i) {
        JsonValue *object = json_value_new_object();
        status = object ? fill_result(generation, model, &generated->results[i], &scratch, object)
                        : FAILURE("out of memory: result %lld", (long long)i);
        if (!status) status = json_value_write(object, 0, out);
        if (!status) status = text_append_string(out, "\n");
        json_value_free(object);
    }
    text_free(&scratch);
    return status;
}

/* Lengths were checked while reading: what is refused here is too long for the cache. */
static Status check_refused(const char *path, const PromptLines *lines, const GeneratedList *generated) {
    for (int64_t i = 0; i < generated->count; ++i)
        if (generated->results[i].finish == GENERATION_REFUSED)
            INVALID("%s:%lld: %s (%lld of %lld prompts)", path, (long long)lines->numbers[i], generated->results[i].refusal,
                    (long long)generated->statistics.refused, (long long)generated->count);
    return STATUS_OK;
}

static void tell_speed(const GenerationStatistics *s) {
    log_info("%lld prompts of %lld tokens, %lld new tokens in %.2f s: %.1f new tokens/s (prompts %.2f s, new tokens %.2f s)",
             (long long)s->requests, (long long)s->prompt_tokens, (long long)s->new_tokens, s->seconds,
             s->seconds > 0 ? (double)s->new_tokens / s->seconds : 0.0, s->prefill_seconds, s->decode_seconds);
    if (s->window_ends > 0)
        log_warning("%lld continuations ended at the end of the model's window, before --max-new-tokens",
                    (long long)s->window_ends);
}

static Status write_results(const Arguments *arguments, const Generation *generation, const TextModel *model,
                            const PromptLines *lines, const GeneratedList *generated) {
    Text text = {0};
    if (model->session.communicator->rank != 0) return STATUS_OK;
    TRY(check_refused(strcmp(arguments->input, "-") ? arguments->input : "standard input", lines, generated));
    Status status = append_results(generation, model, generated, &text);
    if (!status && strcmp(arguments->output, "-") != 0)
        status = file_write_atomic(arguments->output, text.data ? text.data : "", text.length);
    else if (!status && fwrite(text.data ? text.data : "", 1, text.length, stdout) != text.length)
        status = FAILURE("cannot write to standard output");
    text_free(&text);
    if (!status) tell_speed(&generated->statistics);
    return status;
}

/* ---- the run ---- */

static Status create_generation(const Arguments *arguments, TextModel *model, Generation **out) {
    GenerationSettings settings;
    TRY(text_model_settings(model, &settings));
    settings.max_new_tokens = arguments->max_new_tokens;
    settings.sampling = arguments->sampling;
    settings.seed = (uint64_t)arguments->seed;
    settings.batch_size = arguments->batch_size;
    settings.stop = arguments->stops;
    settings.stop_count = arguments->stop_count;
    return generation_create(model->session.decoder, model->session.tape, &settings, out);
}

/* Collective. */
static Status generate(const Arguments *arguments, TextModel *model) {
    Communicator *communicator = model->session.communicator;
    Generation *generation = NULL;
    PromptLines lines = {0};
    GeneratedList generated = {0};
    Status status = communicator_agree(communicator, create_generation(arguments, model, &generation));
    if (!status && communicator->rank == 0)
        status = prompt_lines_read(arguments->input, model, generation_longest_prompt(generation), &lines);
    status = communicator_agree(communicator, status);
    if (!status) status = prompt_list_share(communicator, &lines.prompts);
    if (!status) status = ranked_generation(communicator, generation, &lines.prompts, 0, "generated", &generated);
    if (!status) status = communicator_agree(communicator, write_results(arguments, generation, model, &lines, &generated));
    generated_list_free(&generated);
    prompt_lines_free(&lines);
    generation_destroy(generation);
    return status;
}

static Status run(const Arguments *arguments) {
    Ranks ranks;
    TextModel model;
    TRY(ranks_start(&ranks));
    Status status = text_model_open(&arguments->model, &ranks, &model);
    if (!status) {
        status = generate(arguments, &model);
        text_model_close(&model);
    }
    ranks_end(&ranks);
    return status;
}

Status command_generate(int argc, char **argv) {
    Arguments arguments;
    Status status = status_mark_shared(parse_arguments(argc, argv, &arguments)); /* all ranks were given the same */
    if (!status && arguments.help)
        fputs(usage, stdout);
    else if (!status)
        status = run(&arguments);
    config_arguments_free(&arguments.sets);
    free(arguments.stops);
    return status;
}
