/* adamem memory recall: slot recall of predicted memory summaries. */
#include "trainer/commands/memory.h"

#include "io/json_lines.h"
#include "trainer/commands/command_line.h"
#include "trainer/memory/memory_rules.h"
#include "trainer/metrics/slot_recall.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "Usage: adamem memory recall --input FILE [--threshold X]\n"
    "\n"
    "Reads JSON lines {\"prediction\": \"...\", \"slots\": {NAME: [\"...\"]}}, with the slots that memory synthesize writes, "
    "and\n"
    "prints the share of the slots' items that the predictions state, overall and per slot, as one JSON object. An item counts\n"
    "as stated when at least X of its words stand in the prediction; stop words do not count.\n"
    "\n"
    "  --input FILE   JSON lines, plain, .gz or .zst; - is standard input\n"
    "  --threshold X  above 0, at most 1 (default 0.5)\n"
    "  --help         this text\n";

typedef struct Arguments {
    const char *input;
    double threshold;
    bool help;
} Arguments;

static Status parse_arguments(int argc, char **argv, Arguments *out) {
    static const struct option options[] = {{"input", required_argument, NULL, 'i'},
                                            {"threshold", required_argument, NULL, 't'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    *out = (Arguments){.threshold = SLOT_RECALL_THRESHOLD};
    optind = 0;
    for (int character = 0;;) {
        char *end;
        TRY(command_line_next(argc, argv, options, &character));
        if (character == -1) break;
        switch (character) {
        case 'i': out->input = optarg; break;
        case 't':
            out->threshold = strtod(optarg, &end);
            if (*end || end == optarg || !(out->threshold > 0 && out->threshold <= 1))
                INVALID("%s: --threshold %s: expected a number above 0, at most 1", argv[0], optarg);
            break;
        default: out->help = true; return STATUS_OK;
        }
    }
    if (!out->input) INVALID("%s: --input FILE is missing", argv[0]);
    return STATUS_OK;
}

static Status add_line(const JsonValue *record, const Arguments *arguments, const MemoryRules *rules, SlotRecall *sum) {
    const char *prediction;
    size_t length;
    TRY(json_value_get_string(record, "prediction", &prediction, &length));
    const JsonValue *slots = json_value_get(record, "slots");
    if (!slots) INVALID("\"slots\" is missing");
    return slot_recall_add(sum, slots, prediction, length, rules->stop_words.data, arguments->threshold);
}

static Status add_lines(JsonLines *reader, const Arguments *arguments, const MemoryRules *rules, SlotRecall *sum,
                        int64_t *lines) {
    for (JsonValue *record;; ++*lines) {
        TRY(json_lines_next_object(reader, &record));
        if (!record) return STATUS_OK;
        Status status = add_line(record, arguments, rules, sum);
        json_value_free(record);
        if (status) return status_prefix(status, "%s:%lld", json_lines_path(reader), (long long)json_lines_number(reader));
    }
}

static Status print_recall(const SlotRecall *sum, int64_t lines) {
    JsonValue *object;
    TRY(slot_recall_json(sum, &object));
    return command_print_json(object, json_value_set_integer(object, "predictions", lines));
}

static Status run(const Arguments *arguments) {
    MemoryRules rules;
    SlotRecall sum = {.count = 0};
    JsonLines *reader = NULL;
    int64_t lines = 0;
    TRY(memory_rules_load(NULL, &rules));
    Status status = json_lines_open(arguments->input, &reader);
    if (!status) status = add_lines(reader, arguments, &rules, &sum, &lines);
    if (!status && !lines) status = INVALID_INPUT("%s: no line", arguments->input);
    if (!status) status = print_recall(&sum, lines);
    json_lines_close(reader);
    memory_rules_free(&rules);
    return status;
}

Status command_memory_recall(int argc, char **argv) {
    Arguments arguments;
    TRY(parse_arguments(argc, argv, &arguments));
    if (arguments.help) return fputs(usage, stdout) < 0 ? FAILURE("cannot write to standard output") : STATUS_OK;
    return run(&arguments);
}
