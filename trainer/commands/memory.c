/* adamem memory: session memory and its training data. */
#include "trainer/commands/memory.h"

#include "io/edit_distance.h"
#include "trainer/commands/command_line.h"
#include "trainer/commands/commands.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    Status (*run)(int argc, char **argv);
    const char *summary;
    char *title; /* what messages call it */
} parts[] = {
    {"update", command_memory_update, "session memory: narrative by the model, structure by code", (char[]){"memory update"}},
    {"synthesize", command_memory_synthesize, "training data of format memory out of real dialogues",
     (char[]){"memory synthesize"}},
    {"recall", command_memory_recall, "how much of what summaries must state predictions state", (char[]){"memory recall"}},
};
enum { PARTS = sizeof parts / sizeof *parts };

static Status print_usage(void) {
    fputs("Usage: adamem memory update|synthesize|recall [options]\n\n", stdout);
    for (int i = 0; i < PARTS; ++i) printf("  %-12s %s\n", parts[i].name, parts[i].summary);
    fputs("\nadamem memory NAME --help tells its options.\n", stdout);
    return STATUS_OK;
}

static Status parse_own_options(int argc, char **argv) {
    static const struct option options[] = {{"help", no_argument, NULL, 'h'}, {0}};
    int character;
    optind = 0;
    TRY(command_line_next(argc, argv, options, &character));
    if (character == 'h') return print_usage();
    INVALID("memory: update, synthesize or recall is missing");
}

Status command_memory(int argc, char **argv) {
    if (argc < 2 || argv[1][0] == '-') return parse_own_options(argc, argv);
    const char *names[PARTS];
    for (int i = 0; i < PARTS; ++i) {
        names[i] = parts[i].name;
        if (strcmp(argv[1], parts[i].name)) continue;
        argv[1] = parts[i].title;
        return parts[i].run(argc - 1, argv + 1);
    }
    int nearest = nearest_name(argv[1], names, PARTS);
    INVALID("memory: unknown \"%s\"; %s%s", argv[1], nearest < 0 ? "there are update, synthesize, recall" : "the nearest is ",
            nearest < 0 ? "" : names[nearest]);
}
