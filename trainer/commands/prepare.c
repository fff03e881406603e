/* adamem prepare: the data of a configuration becomes token data sets; counts on standard output, samples on request. */
#include "trainer/commands/commands.h"

#include "trainer/commands/command_line.h"
#include "trainer/data.h"
#include "trainer/ranks.h"
#include "trainer/sample_view.h"
#include "trainer/session.h"
#include "trainer/stop.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char usage[] =
    "Usage: adamem prepare --config FILE [--set KEY=VALUE]... [--show-samples N]\n"
    "\n"
    "Reads data.train and data.validation, applies templates and tokenizer, cuts to data.max_length, and writes token data\n"
    "sets to data.cache_dir (default: run.output_dir/cache). What is there already is kept: an interrupted preparation goes\n"
    "on, an unchanged one only prints its counts, as one JSON object. With mpirun or srun all ranks share the work.\n"
    "\n"
    "  --config FILE      configuration\n"
    "  --set KEY=VALUE    overrides a key\n"
    "  --show-samples N   before the counts, prints the first N samples of each data set; what is trained is green on a\n"
    "                     terminal, between \302\253 and \302\273 elsewhere\n"
    "  --help             this text\n"
    "\n"
    "Formats (data.train, data.validation), their template fields and what data.prompt_template and data.completion_template\n"
    "are by default. With data.chat_template = \"chatml\" the blank before a default completion is left out.\n";

static Status print_help(void) {
    Text text = {0};
    Status status = text_append_string(&text, usage);
    if (!status) status = data_format_help(&text);
    if (!status) fputs(text.data, stdout);
    text_free(&text);
    return status;
}

typedef struct Arguments {
    ConfigArguments config;
    long long show_samples;
    bool help;
} Arguments;

static Status parse_arguments(int argc, char **argv, Arguments *out) {
    static const struct option options[] = {
        CONFIG_ARGUMENT_OPTIONS, {"show-samples", required_argument, NULL, 'n'}, {"help", no_argument, NULL, 'h'}, {0}};
    *out = (Arguments){.help = false};
    TRY(config_arguments_create(argc, &out->config));
    optind = 0;
    for (int character = 0;;) {
        TRY(command_line_next(argc, argv, options, &character));
        if (character == -1) break;
        switch (character) {
        case 'c': out->config.config = optarg; break;
        case 's': out->config.sets[out->config.count++] = optarg; break;
        case 'n': TRY(command_line_count("prepare", "show-samples", optarg, INT32_MAX, &out->show_samples)); break;
        default: out->help = true; return STATUS_OK;
        }
    }
    if (!out->config.config && out->config.count == 0) INVALID("prepare: --config FILE is missing");
    return STATUS_OK;
}

static Status show_samples(const char *name, const char *directory, const Tokenizer *tokenizer, int64_t count) {
    TokenDataset *dataset;
    Text text = {0};
    TRY(token_dataset_open(directory, &dataset));
    Status status = STATUS_OK;
    for (int64_t i = 0; i < count && i < token_dataset_samples(dataset) && !status; ++i) {
        text_clear(&text);
        status = sample_view_append(dataset, i, name, tokenizer, isatty(STDOUT_FILENO), &text);
        if (!status && fwrite(text.data, 1, text.length, stdout) != text.length)
            status = FAILURE("cannot write to standard output");
    }
    text_free(&text);
    token_dataset_close(dataset);
    return status;
}

static Status report(const char *name, const char *directory, const PrepareCounts *counts, JsonValue *result) {
    TRY(json_value_set(result, name, json_value_new_object()));
    JsonValue *object = json_value_get(result, name);
    TRY(sample_counts_to_json(&counts->counts, object));
    return json_value_set(object, "cache_directory", json_value_new_string(directory, strlen(directory)));
}

/* Collective. */
static Status prepare_one(const Options *options, Tokenizer *tokenizer, Communicator *communicator, bool validation,
                          int64_t shown, JsonValue *result) {
    const char *name = validation ? "validation" : "train";
    char *directory;
    PrepareCounts counts;
    TRY(data_prepare(options, tokenizer, communicator, validation, &directory, &counts));
    Status status = STATUS_OK;
    if (communicator->rank == 0) {
        if (shown) status = show_samples(name, directory, tokenizer, shown);
        if (!status) status = report(name, directory, &counts, result);
    }
    prepare_counts_free(&counts);
    free(directory);
    return communicator_agree(communicator, status);
}

/* Collective. */
static Status prepare_all(const Options *options, int64_t shown, Communicator *communicator) {
    Tokenizer *tokenizer = NULL;
    JsonValue *result = json_value_new_object();
    Status status = communicator_agree(communicator, session_tokenizer(options, true, &tokenizer));
    if (!status) status = prepare_one(options, tokenizer, communicator, false, shown, result);
    if (!status && options->data.validation.count) status = prepare_one(options, tokenizer, communicator, true, shown, result);
    if (communicator->rank == 0)
        status = command_print_json(result, status);
    else
        json_value_free(result);
    tokenizer_free(tokenizer);
    return status;
}

static Status load_options(const Arguments *arguments, Options *options) {
    TRY(options_load(arguments->config.config, arguments->config.sets, arguments->config.count, options));
    Status status = options_validate(options, OPTIONS_FOR_PREPARE);
    if (status) options_free(options);
    return status;
}

static Status run(const Arguments *arguments) {
    Ranks ranks;
    Options options;
    stop_listen();
    TRY(ranks_start(&ranks));
    Status status = ranks_agree(&ranks, load_options(arguments, &options));
    if (!status) {
        status = prepare_all(&options, arguments->show_samples, ranks.communicator);
        options_free(&options);
    }
    ranks_end(&ranks);
    return status;
}

Status command_prepare(int argc, char **argv) {
    Arguments arguments;
    Status status = status_mark_shared(parse_arguments(argc, argv, &arguments)); /* all ranks were given the same */
    if (!status && arguments.help)
        status = print_help();
    else if (!status)
        status = run(&arguments);
    config_arguments_free(&arguments.config);
    return status;
}
