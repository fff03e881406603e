/* adamem plot: four panels from metrics.jsonl, drawn by gnuplot from a script that carries the numbers. */
#include "trainer/commands/commands.h"

#include "io/file.h"
#include "io/metrics_log.h"
#include "trainer/commands/command_line.h"
#include "trainer/commands/operand.h"

#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ; /* POSIX has no header for it without GNU extensions */

static const char usage[] = "Usage: adamem plot RUN_DIR [--output FILE.svg|FILE.png]\n"
                            "\n"
                            "Draws loss and evaluation loss, learning rate, tokens per second and gradient norm over the steps\n"
                            "from RUN_DIR/metrics.jsonl. Needs gnuplot.\n"
                            "\n"
                            "  --output FILE  picture to write (default RUN_DIR/plot.svg)\n"
                            "  --help         this text\n";

typedef struct Series {
    const char *key;   /* in metrics.jsonl; the gnuplot data block has its name */
    const char *title; /* in the legend */
    int panel;
    int64_t points;
    Text data;
} Series;

enum { SERIES = 5, PANELS = 4 };
static const char *const panel_titles[PANELS] = {"Loss", "Learning rate", "Tokens per second", "Gradient norm"};

static Status collect_point(void *context, const JsonValue *object) {
    Series *series = context;
    const JsonValue *step = json_value_get(object, "step");
    if (!json_value_is_number(step)) return STATUS_OK;
    for (int i = 0; i < SERIES; ++i) {
        const JsonValue *value = json_value_get(object, series[i].key);
        if (!json_value_is_number(value)) continue;
        TRY(text_append_format(&series[i].data, "%.17g %.17g\n", json_value_number(step), json_value_number(value)));
        ++series[i].points;
    }
    return STATUS_OK;
}

/* A gnuplot string in single quotes: a quote inside is doubled, nothing else is special. */
static Status append_quoted(Text *script, const char *string) {
    TRY(text_append(script, "'", 1));
    for (; *string; ++string) TRY(text_append(script, *string == '\'' ? "''" : string, *string == '\'' ? 2 : 1));
    return text_append(script, "'", 1);
}

static Status append_panel(Text *script, int panel, const Series *series) {
    const char *separator = "plot ";
    TRY(text_append_format(script, "set title '%s'\n", panel_titles[panel]));
    for (int i = 0; i < SERIES; ++i) {
        if (series[i].panel != panel || !series[i].points) continue;
        /* Few points are shown as such: a single one would be an invisible line. */
        TRY(text_append_format(script, "%s$%s using 1:2 with %s title '%s'", separator, series[i].key,
                               series[i].points < 50 ? "linespoints pointtype 7 pointsize 0.4" : "lines", series[i].title));
        separator = ", ";
    }
    /* multiplot needs a plot in every panel. */
    if (*separator == 'p') TRY(text_append_string(script, "plot [0:1][0:1] NaN title 'not in metrics.jsonl'"));
    return text_append_string(script, "\n");
}

static Status build_script(Series *series, const char *terminal, const char *output, Text *script) {
    for (int i = 0; i < SERIES; ++i)
        if (series[i].points) TRY(text_append_format(script, "$%s << END\n%sEND\n", series[i].key, series[i].data.data));
    TRY(text_append_format(script, "set terminal %s\nset output ", terminal));
    TRY(append_quoted(script, output));
    TRY(text_append_string(script, "\nset multiplot layout 2,2\nset grid\nset xlabel 'step'\nset format y '%g'\n"));
    for (int panel = 0; panel < PANELS; ++panel) TRY(append_panel(script, panel, series));
    return text_append_string(script, "unset multiplot\nunset output\n");
}

/* The temporary file is where TMPDIR says, and is gone when the process is. */
static Status write_script(const Text *script, char path[4096]) {
    const char *directory = getenv("TMPDIR");
    int length = snprintf(path, 4096, "%s/adamem-plot-XXXXXX", directory && *directory ? directory : "/tmp");
    int descriptor = length < 4096 ? mkstemp(path) : -1;
    if (descriptor < 0) FAIL("cannot create a temporary file in %s: %s", directory ? directory : "/tmp", strerror(errno));
    FILE *stream = fdopen(descriptor, "wb");
    bool written = stream && fwrite(script->data, 1, script->length, stream) == script->length;
    if (stream)
        written = !fclose(stream) && written;
    else
        close(descriptor);
    if (written) return STATUS_OK;
    unlink(path);
    FAIL("%s: cannot write: %s", path, strerror(errno));
}

static Status run_gnuplot(const char *script_path) {
    char program[] = "gnuplot";
    char *arguments[] = {program, (char *)(uintptr_t)script_path, NULL};
    pid_t child;
    int error = posix_spawnp(&child, program, NULL, NULL, arguments, environ);
    if (error == ENOENT) FAIL("gnuplot is missing: apt-get install gnuplot-nox");
    if (error) FAIL("cannot start gnuplot: %s", strerror(error));
    int state;
    while (waitpid(child, &state, 0) < 0)
        if (errno != EINTR) FAIL("lost gnuplot: %s", strerror(errno));
    if (WIFSIGNALED(state)) FAIL("gnuplot was ended by signal %d", WTERMSIG(state));
    if (WEXITSTATUS(state)) FAIL("gnuplot failed with exit status %d; its message stands above", WEXITSTATUS(state));
    return STATUS_OK;
}

/* gnuplot may end well without having written anything. */
static Status check_picture(const char *path) {
    int64_t bytes = 0;
    if (file_exists(path)) TRY(file_size(path, &bytes));
    if (!bytes) FAIL("gnuplot wrote no picture to %s", path);
    return STATUS_OK;
}

static Status draw(Series *series, const char *terminal, const char *output) {
    Text script = {0}, temporary = {0};
    char script_path[4096];
    Status status;
    TRY_GOTO(text_append_format(&temporary, "%s.tmp-%ld", output, (long)getpid()), done);
    TRY_GOTO(build_script(series, terminal, temporary.data, &script), done);
    TRY_GOTO(write_script(&script, script_path), done);
    status = run_gnuplot(script_path);
    unlink(script_path);
    if (!status) status = check_picture(temporary.data);
    if (!status) status = file_commit(temporary.data, output);
    if (status) unlink(temporary.data);
done:
    text_free(&script);
    text_free(&temporary);
    return status;
}

static Status choose_terminal(const char *output, const char **terminal) {
    const char *dot = strrchr(output, '.');
    if (dot && !strcmp(dot, ".svg"))
        *terminal = "svg size 1200,800 background '#ffffff'";
    else if (dot && !strcmp(dot, ".png"))
        *terminal = "pngcairo size 1200,800";
    else
        INVALID("plot: --output %s: the name must end in .svg or .png", output);
    return STATUS_OK;
}

static Status plot_run(const char *directory, const char *output) {
    Series series[SERIES] = {{.key = "loss", .title = "loss", .panel = 0},
                             {.key = "eval_loss", .title = "evaluation loss", .panel = 0},
                             {.key = "learning_rate", .title = "learning rate", .panel = 1},
                             {.key = "tokens_per_second", .title = "tokens/s", .panel = 2},
                             {.key = "grad_norm", .title = "gradient norm", .panel = 3}};
    char *metrics = NULL, *default_output = NULL;
    const char *terminal;
    int64_t points = 0;
    Status status;
    TRY_GOTO(path_join(directory, "metrics.jsonl", &metrics), done);
    TRY_GOTO(path_join(directory, "plot.svg", &default_output), done);
    if (!output) output = default_output;
    TRY_GOTO(choose_terminal(output, &terminal), done);
    TRY_GOTO(metrics_log_read(metrics, collect_point, series), done);
    for (int i = 0; i < SERIES; ++i) points += series[i].points;
    if (!points) {
        status = INVALID_INPUT("%s: holds nothing to plot", metrics);
        goto done;
    }
    TRY_GOTO(draw(series, terminal, output), done);
    printf("%s\n", output);
done:
    for (int i = 0; i < SERIES; ++i) text_free(&series[i].data);
    free(metrics);
    free(default_output);
    return status;
}

Status command_plot(int argc, char **argv) {
    static const struct option options[] = {{"output", required_argument, NULL, 'o'}, {"help", no_argument, NULL, 'h'}, {0}};
    const char *directory = command_line_operand(&argc, argv, options), *output = NULL;
    optind = 0;
    for (int character = 0;;) {
        TRY(command_line_next(argc, argv, options, &character));
        if (character == -1) break;
        if (character == 'h') {
            fputs(usage, stdout);
            return STATUS_OK;
        }
        output = optarg;
    }
    if (!directory) INVALID("plot: RUN_DIR is missing");
    return plot_run(directory, output);
}
