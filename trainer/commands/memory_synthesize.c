/* adamem memory synthesize: dialogues in, training data of format memory out. */
#include "trainer/commands/memory.h"

#include "io/file.h"
#include "io/json_lines.h"
#include "trainer/commands/command_line.h"
#include "trainer/memory/dialogue.h"
#include "trainer/memory/synthesis.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

static const char usage[] =
    "Usage: adamem memory synthesize --input FILE --format FORMAT [--output FILE] [--seed N] [--samples N] [--rules FILE]\n"
    "\n"
    "Cuts dialogues into sessions and writes one JSON line of format memory for each: {previous_memory, recent_turns,\n"
    "active_document, summary}, and as slots what the summary states: focus, goal, questions, decisions, problems. The same\n"
    "input and seed give the same bytes. Prints counts as JSON: on standard output, or on standard error when the lines go\n"
    "there.\n"
    "\n"
    "  --input FILE     JSON lines, plain, .gz or .zst; - is standard input\n"
    "  --format FORMAT  dialogsum, samsum, qmsum or chat\n"
    "  --output FILE    written whole or not at all; - is standard output (default -)\n"
    "  --seed N         (default 42)\n"
    "  --samples N      stop after N lines (default: all)\n"
    "  --rules FILE     cue phrases, in the form of configs/prompts/memory_rules.json, which are built in\n"
    "  --help           this text\n";

typedef struct Arguments {
    const char *input, *format, *output, *rules;
    long long seed, samples;
    bool help;
} Arguments;

static Status parse_arguments(int argc, char **argv, Arguments *out) {
    static const struct option options[] = {{"input", required_argument, NULL, 'i'},   {"format", required_argument, NULL, 'f'},
                                            {"output", required_argument, NULL, 'o'},  {"seed", required_argument, NULL, 's'},
                                            {"samples", required_argument, NULL, 'n'}, {"rules", required_argument, NULL, 'r'},
                                            {"help", no_argument, NULL, 'h'},          {0}};
    *out = (Arguments){.output = "-", .seed = 42};
    optind = 0;
    for (int character = 0;;) {
        TRY(command_line_next(argc, argv, options, &character));
        if (character == -1) break;
        switch (character) {
        case 'i': out->input = optarg; break;
        case 'f': out->format = optarg; break;
        case 'o': out->output = optarg; break;
        case 'r': out->rules = optarg; break;
        case 's': TRY(command_line_count(argv[0], "seed", optarg, LLONG_MAX, &out->seed)); break;
        case 'n':
            TRY(command_line_count(argv[0], "samples", optarg, LLONG_MAX, &out->samples));
            if (!out->samples) INVALID("%s: --samples must be at least 1", argv[0]);
            break;
        default: out->help = true; return STATUS_OK;
        }
    }
    if (!out->input) INVALID("%s: --input FILE is missing", argv[0]);
    if (!out->format) INVALID("%s: --format FORMAT is missing", argv[0]);
    return status_prefix(dialogue_check_format(out->format), "%s", argv[0]);
}

static Status read_all(JsonLines *reader, Synthesis *synthesis, Text *out) {
    for (JsonValue *record;;) {
        if (synthesis->most_samples && synthesis->counts.samples >= synthesis->most_samples) return STATUS_OK;
        TRY(json_lines_next_object(reader, &record));
        if (!record) return STATUS_OK;
        long long number = json_lines_number(reader);
        Status status = synthesis_add(synthesis, record, number, out);
        json_value_free(record);
        if (status) return status_prefix(status, "%s:%lld", json_lines_path(reader), number);
    }
}

static Status set_counts(JsonValue *object, const SynthesisCounts *counts) {
    TRY(json_value_set_integer(object, "dialogues", counts->dialogues));
    TRY(json_value_set_integer(object, "sessions", counts->sessions));
    TRY(json_value_set_integer(object, "samples", counts->samples));
    TRY(json_value_set_integer(object, "sessions_without_slots", counts->left_out));
    for (int slot = 0; slot < SLOTS; ++slot) TRY(json_value_set_integer(object, target_slot_keys[slot], counts->slots[slot]));
    return STATUS_OK;
}

static Status print_counts(const SynthesisCounts *counts, FILE *stream) {
    Text text = {0};
    JsonValue *object = json_value_new_object();
    TRY_ALLOC(object);
    Status status = set_counts(object, counts);
    if (!status) status = json_value_write(object, 0, &text);
    if (!status && fprintf(stream, "%s\n", text.data) < 0) status = FAILURE("cannot write the counts");
    text_free(&text);
    json_value_free(object);
    return status;
}

static Status write_lines(const Arguments *arguments, const Text *lines, const SynthesisCounts *counts) {
    TRY(command_write_text(arguments->output, lines));
    return print_counts(counts, strcmp(arguments->output, "-") ? stdout : stderr);
}

static Status synthesize(const Arguments *arguments, Synthesis *synthesis, Text *lines) {
    JsonLines *reader;
    TRY(json_lines_open(arguments->input, &reader));
    Status status = read_all(reader, synthesis, lines);
    json_lines_close(reader);
    if (!status && !synthesis->counts.samples)
        status = INVALID_INPUT("%s: gives no sample: %lld dialogues, %lld sessions without anything to state", arguments->input,
                               (long long)synthesis->counts.dialogues, (long long)synthesis->counts.left_out);
    return status ? status : write_lines(arguments, lines, &synthesis->counts);
}

static Status run(const Arguments *arguments) {
    MemoryRules rules;
    TargetPhrases phrases = {.phrases = {{0}}};
    Text lines = {0};
    TRY(memory_rules_load(arguments->rules, &rules));
    Synthesis synthesis = {.rules = &rules,
                           .phrases = &phrases,
                           .format = arguments->format,
                           .seed = (uint64_t)arguments->seed,
                           .most_samples = arguments->samples};
    Status status = target_phrases_load(&phrases);
    if (!status) status = synthesize(arguments, &synthesis, &lines);
    text_free(&lines);
    target_phrases_free(&phrases);
    memory_rules_free(&rules);
    return status;
}

Status command_memory_synthesize(int argc, char **argv) {
    Arguments arguments;
    TRY(parse_arguments(argc, argv, &arguments));
    if (arguments.help) return fputs(usage, stdout) < 0 ? FAILURE("cannot write to standard output") : STATUS_OK;
    return run(&arguments);
}
