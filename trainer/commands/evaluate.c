/* adamem evaluate: loss and perplexity of a model, an adapter or a checkpoint; logits for comparisons. */
#include "trainer/commands/commands.h"

#include "io/json_lines.h"
#include "io/log.h"
#include "trainer/commands/command_line.h"
#include "trainer/data.h"
#include "trainer/evaluation.h"
#include "trainer/logits.h"
#include "trainer/peft.h"
#include "trainer/ranks.h"
#include "trainer/training_state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "Usage: adamem evaluate --config FILE [--checkpoint PATH] [--set KEY=VALUE]... [--logits FILE]\n"
    "       adamem evaluate --checkpoint PATH [--model DIR] [--input FILE [--format FORMAT]] [--set KEY=VALUE]...\n"
    "       adamem evaluate --model DIR [--adapter DIR] --input FILE [--format FORMAT] [--set KEY=VALUE]... [--logits FILE]\n"
    "\n"
    "Prints loss, perplexity and counts over data.validation, or over FILE, as one JSON object, with unigram_loss, the best\n"
    "that a model without context could reach. Without a checkpoint or an adapter the base model is evaluated.\n"
    "\n"
    "  --config FILE      configuration\n"
    "  --checkpoint PATH  trained tensors; without --config, also the configuration of their run\n"
    "  --model DIR        model directory; beside --checkpoint, overrides the base model's path\n"
    "  --adapter DIR      PEFT adapter directory\n"
    "  --input FILE       JSON lines; - is standard input\n"
    "  --format FORMAT    of FILE (data.*.format); by default told from the fields of its first line: tokens, chat,\n"
    "                     prompt_completion or text\n"
    "  --set KEY=VALUE    overrides a key\n"
    "  --logits FILE      writes safetensors with one F32 tensor logits.N [T,V] per line of the input, N from 0; row t\n"
    "                     predicts token t+1; one rank only\n"
    "  --help             this text\n";

typedef struct Arguments {
    ConfigArguments config;
    const char *checkpoint, *model, *adapter, *input, *format, *logits;
    bool help;
} Arguments;

static Status check_arguments(const Arguments *a) {
    if (a->config.config && (a->input || a->adapter || a->format))
        INVALID("evaluate: --config goes with --checkpoint; --input, --format and --adapter go with --model");
    if (!a->config.config && !a->checkpoint && !(a->model && a->input))
        INVALID("evaluate: give --config FILE, --checkpoint PATH, or --model DIR and --input FILE");
    if (a->checkpoint && a->adapter) INVALID("evaluate: give --checkpoint or --adapter, not both");
    return STATUS_OK;
}

static Status parse_arguments(int argc, char **argv, Arguments *out) {
    static const struct option options[] = {CONFIG_ARGUMENT_OPTIONS,
                                            {"checkpoint", required_argument, NULL, 'k'},
                                            {"model", required_argument, NULL, 'm'},
                                            {"adapter", required_argument, NULL, 'a'},
                                            {"input", required_argument, NULL, 'i'},
                                            {"format", required_argument, NULL, 'f'},
                                            {"logits", required_argument, NULL, 'l'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    *out = (Arguments){0};
    TRY(config_arguments_create(argc, &out->config));
    optind = 0;
    for (int character = 0;;) {
        TRY(command_line_next(argc, argv, options, &character));
        if (character == -1) break;
        switch (character) {
        case 'c': out->config.config = optarg; break;
        case 's': out->config.sets[out->config.count++] = optarg; break;
        case 'k': out->checkpoint = optarg; break;
        case 'm': out->model = optarg; break;
        case 'a': out->adapter = optarg; break;
        case 'i': out->input = optarg; break;
        case 'f': out->format = optarg; break;
        case 'l': out->logits = optarg; break;
        default: out->help = true; return STATUS_OK;
        }
    }
    return check_arguments(out);
}

/* The format whose fields the first line has. */
static Status guess_format(const char *path, const char **format) {
    JsonLines *reader;
    JsonValue *first = NULL;
    if (strcmp(path, "-") == 0) INVALID("evaluate: --input - needs --format");
    TRY(json_lines_open(path, &reader));
    Status status = json_lines_next_object(reader, &first);
    json_lines_close(reader);
    TRY(status);
    static const char *const fields[][2] = {{"input_ids", "tokens"},
                                            {"messages", "chat"},
                                            {"completion", "prompt_completion"},
                                            {"article", "cnn_dailymail"},
                                            {"text", "text"}};
    *format = NULL;
    for (size_t i = 0; i < sizeof fields / sizeof *fields && first && !*format; ++i)
        if (json_value_get(first, fields[i][0])) *format = fields[i][1];
    json_value_free(first);
    if (!*format) INVALID("%s: cannot tell the format from the first line's fields; give --format", path);
    return STATUS_OK;
}

/* --model --input: one validation source. */
static Status use_input(const Arguments *arguments, Options *options) {
    const char *format = arguments->format;
    if (!format) TRY(guess_format(arguments->input, &format));
    Text text = {0};
    Options source;
    Status status = text_append_string(&text, "data = { validation = ( { path = ");
    JsonValue *path = json_value_new_string(arguments->input, strlen(arguments->input));
    if (!status) status = json_value_write(path, 0, &text); /* JSON's quotes and escapes are libconfig's */
    if (!status) status = text_append_format(&text, "; format = \"%s\"; } ); };\n", format);
    if (!status) status = options_load_text("--input", text.data, &source);
    json_value_free(path);
    text_free(&text);
    TRY(status);
    ConfigRecordList old = options->data.validation;
    options->data.validation = source.data.validation;
    source.data.validation = old;
    options_free(&source);
    return STATUS_OK;
}

static Status fill_options(const Arguments *arguments, Options *options) {
    if (arguments->model) TRY(options_set_model(options, arguments->model));
    if (arguments->input) {
        TRY(use_input(arguments, options));
        options->data.max_zero_label_fraction = 1.0; /* lines without a label are nothing to warn of here */
    }
    if (arguments->adapter) TRY(peft_read_config(arguments->adapter, options));
    return options_validate(options, OPTIONS_FOR_EVALUATE);
}

/* Without --config a checkpoint brings the configuration of its run. */
static Status load_base_options(const Arguments *arguments, Options *options) {
    const ConfigArguments *config = &arguments->config;
    if (config->config || !arguments->checkpoint) return options_load(config->config, config->sets, config->count, options);
    Checkpoint *checkpoint;
    TRY(checkpoint_open(arguments->checkpoint, &checkpoint));
    Status status = options_load_text(arguments->checkpoint, checkpoint_meta(checkpoint)->config, options);
    checkpoint_close(checkpoint);
    TRY(status);
    status = options_apply(config->sets, config->count, options);
    if (status) options_free(options);
    return status;
}

static Status load_options(const Arguments *arguments, Options *options) {
    TRY(load_base_options(arguments, options));
    Status status = fill_options(arguments, options);
    if (status) options_free(options);
    return status;
}

static Status fill_result(JsonValue *object, const EvaluationResult *result) {
    TRY(json_value_set_number(object, "loss", result->loss));
    TRY(json_value_set_number(object, "perplexity", result->perplexity));
    TRY(json_value_set_number(object, "unigram_loss", result->unigram_loss));
    TRY(json_value_set_integer(object, "samples", result->samples));
    TRY(json_value_set_integer(object, "tokens", result->tokens));
    TRY(json_value_set_integer(object, "label_tokens", result->label_tokens));
    TRY(json_value_set_number(object, "seconds", result->seconds));
    return json_value_set_number(object, "tokens_per_second", (double)result->tokens / result->seconds);
}

static Status print_result(const EvaluationResult *result, int rank) {
    if (rank != 0) return STATUS_OK;
    if (result->loss != result->loss) FAIL("the loss is not a number: the weights or the data are broken");
    JsonValue *object;
    TRY_ALLOC(object = json_value_new_object());
    return command_print_json(object, fill_result(object, result));
}

/* Collective. */
static Status evaluate_data(Session *session, const char *directory) {
    TokenDataset *dataset = NULL;
    EvaluationResult result;
    TRY(communicator_agree(session->communicator, token_dataset_open(directory, &dataset)));
    Status status = evaluate_loss(session, objective_by_name("sft"), dataset, session->options->evaluation.max_samples, &result);
    token_dataset_close(dataset);
    if (!status) status = print_result(&result, session->communicator->rank);
    return communicator_agree(session->communicator, status);
}

/* Collective. */
static Status evaluate(const Arguments *arguments, const Options *options, const Ranks *ranks) {
    Session session = {0};
    Tokenizer *tokenizer = NULL;
    char *directory = NULL;
    Status status;
    if (arguments->logits && ranks->launch.world > 1)
        return status_mark_shared(INVALID_INPUT("evaluate: --logits works on one rank"));
    TRY_GOTO(ranks_agree(ranks, session_tokenizer(options, true, &tokenizer)), done);
    TRY_GOTO(data_prepare(options, tokenizer, ranks->communicator, true, &directory, NULL), done);
    TRY_GOTO(session_open(options, &ranks->launch, ranks->communicator, (SessionSettings){.training = false}, &session), done);
    if (arguments->checkpoint) TRY_GOTO(training_state_load_parameters(&session, arguments->checkpoint), done);
    if (arguments->logits) TRY_GOTO(logits_write(&session, tokenizer, arguments->logits), done);
    TRY_GOTO(evaluate_data(&session, directory), done);
done:
    session_close(&session);
    tokenizer_free(tokenizer);
    free(directory);
    return status;
}

static Status run(const Arguments *arguments) {
    Ranks ranks;
    Options options;
    TRY(ranks_start(&ranks));
    Status status = ranks_agree(&ranks, load_options(arguments, &options));
    if (!status) {
        status = evaluate(arguments, &options, &ranks);
        options_free(&options);
    }
    ranks_end(&ranks);
    return status;
}

Status command_evaluate(int argc, char **argv) {
    Arguments arguments;
    Status status = status_mark_shared(parse_arguments(argc, argv, &arguments)); /* all ranks were given the same */
    if (!status && arguments.help)
        fputs(usage, stdout);
    else if (!status)
        status = run(&arguments);
    config_arguments_free(&arguments.config);
    return status;
}
