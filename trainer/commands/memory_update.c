/* adamem memory update: what one session leaves to the next. */
#include "trainer/commands/memory.h"

#include "io/file.h"
#include "trainer/commands/command_line.h"
#include "trainer/memory/session_input.h"
#include "trainer/memory/structure_update.h"

#include <stdio.h>
#include <string.h>

static const char usage[] =
    "Usage: adamem memory update --structure-only --memory FILE --turns FILE [--document FILE] [--output FILE]\n"
    "\n"
    "Prints the session memory after some turns as JSON {narrative, structured}; configs/prompts/session_memory.schema.json\n"
    "describes it. Code keeps goal, facts, focus, questions, decisions and problems by rules: the same input gives the same "
    "bytes.\n"
    "\n"
    "  --structure-only  keeps the narrative as it is\n"
    "  --memory FILE     the memory before, JSON; {} for a new one\n"
    "  --turns FILE      the session's turns {\"role\": \"user\" or \"assistant\", \"text\"}: a JSON array or JSON lines\n"
    "  --document FILE   the active document, JSON {file_name, doc_summary}\n"
    "  --rules FILE      cue phrases, in the form of configs/prompts/memory_rules.json, which are built in\n"
    "  --output FILE     written whole or not at all, may be the --memory file; - is standard output (default -)\n"
    "  --help            this text\n"
    "\n"
    "One of the inputs may be -, standard input.\n";

typedef struct Arguments {
    const char *memory, *turns, *document, *rules, *output;
    bool structure_only, help;
} Arguments;

static Status check_arguments(const char *command, const Arguments *a) {
    if (!a->structure_only) INVALID("%s: --structure-only is missing", command);
    if (!a->memory) INVALID("%s: --memory FILE is missing", command);
    if (!a->turns) INVALID("%s: --turns FILE is missing", command);
    int from_input = !strcmp(a->memory, "-") + !strcmp(a->turns, "-") + (a->document && !strcmp(a->document, "-"));
    if (from_input > 1) INVALID("%s: only one of --memory, --turns and --document can be standard input", command);
    return STATUS_OK;
}

static Status parse_arguments(int argc, char **argv, Arguments *out) {
    static const struct option options[] = {
        {"structure-only", no_argument, NULL, 'S'}, {"memory", required_argument, NULL, 'm'},
        {"turns", required_argument, NULL, 't'},    {"document", required_argument, NULL, 'd'},
        {"rules", required_argument, NULL, 'r'},    {"output", required_argument, NULL, 'o'},
        {"help", no_argument, NULL, 'h'},           {0}};
    *out = (Arguments){.output = "-"};
    optind = 0;
    for (int character = 0;;) {
        TRY(command_line_next(argc, argv, options, &character));
        if (character == -1) break;
        switch (character) {
        case 'S': out->structure_only = true; break;
        case 'm': out->memory = optarg; break;
        case 't': out->turns = optarg; break;
        case 'd': out->document = optarg; break;
        case 'r': out->rules = optarg; break;
        case 'o': out->output = optarg; break;
        default: out->help = true; return STATUS_OK;
        }
    }
    return check_arguments(argv[0], out);
}

typedef struct Inputs {
    MemoryRules rules;
    SessionMemory memory;
    JsonValue *turns, *document; /* document NULL: none */
} Inputs;

static void inputs_free(Inputs *in) {
    memory_rules_free(&in->rules);
    session_memory_free(&in->memory);
    json_value_free(in->turns);
    json_value_free(in->document);
}

static Status read_memory(const char *path, SessionMemory *out) {
    JsonValue *object;
    TRY(session_input_value(path, &object));
    Status status = status_prefix(session_memory_read(object, out), "%s", path);
    json_value_free(object);
    return status;
}

static Status read_inputs(const Arguments *arguments, Inputs *out) {
    *out = (Inputs){.turns = NULL};
    Status status = memory_rules_load(arguments->rules, &out->rules);
    if (!status) status = read_memory(arguments->memory, &out->memory);
    if (!status) status = session_input_turns(arguments->turns, &out->turns);
    if (!status && arguments->document) status = session_input_value(arguments->document, &out->document);
    if (status) inputs_free(out);
    return status;
}

static Status write_memory(const SessionMemory *memory, const char *path) {
    Text text = {0};
    Status status = session_memory_write(memory, &text);
    if (!status && strcmp(path, "-"))
        status = file_write_atomic(path, text.data, text.length);
    else if (!status && (fwrite(text.data, 1, text.length, stdout) != text.length || fflush(stdout)))
        status = FAILURE("cannot write to standard output");
    text_free(&text);
    return status;
}

/* The document and then the turns, as in one update, so that an error can name the file. */
static Status update_structure(const Arguments *arguments, Inputs *in) {
    JsonValue *no_turns = json_value_new_array();
    TRY_ALLOC(no_turns);
    Status status = structure_update(&in->rules, no_turns, in->document, &in->memory);
    json_value_free(no_turns);
    TRY(status_prefix(status, "%s", arguments->document));
    return status_prefix(structure_update(&in->rules, in->turns, NULL, &in->memory), "%s", arguments->turns);
}

static Status run(const Arguments *arguments) {
    Inputs in;
    TRY(read_inputs(arguments, &in));
    Status status = update_structure(arguments, &in);
    if (!status) status = write_memory(&in.memory, arguments->output);
    inputs_free(&in);
    return status;
}

Status command_memory_update(int argc, char **argv) {
    Arguments arguments;
    TRY(parse_arguments(argc, argv, &arguments));
    if (arguments.help) return fputs(usage, stdout) < 0 ? FAILURE("cannot write to standard output") : STATUS_OK;
    return run(&arguments);
}
