#include "trainer/goodput.h"

#include "io/file.h"
#include "io/json_value.h"
#include "io/log.h"
#include "trainer/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

static double wall_clock(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* When the run last wrote a line; 0 where it never did. */
static double last_line(const char *directory) {
    char *path;
    struct stat info;
    Status status = path_join(directory, "metrics.jsonl", &path);
    if (status) {
        status_free(status);
        return 0;
    }
    bool there = stat(path, &info) == 0;
    free(path);
    return there ? (double)info.st_mtim.tv_sec + 1e-9 * (double)info.st_mtim.tv_nsec : 0;
}

static Status read_marks(const JsonValue *list, int64_t step, Goodput *out) {
    for (size_t i = 0; i < json_value_size(list) && out->count < GOODPUT_MARKS; ++i) {
        GoodputMark mark;
        TRY(json_value_get_integer(json_value_at(list, i), "step", &mark.step));
        TRY(json_value_get_number(json_value_at(list, i), "step_seconds", &mark.step_seconds));
        if (mark.step > step) continue; /* its checkpoint was lost, or never made */
        out->marks[out->count++] = mark;
        if (mark.step == step) out->step_seconds = mark.step_seconds;
    }
    return STATUS_OK;
}

static Status read_file(const char *path, int64_t step, Goodput *out) {
    JsonValue *json = NULL;
    double kept_at;
    TRY(json_value_read_file(path, &json));
    Status status = json_value_get_number(json, "wall_seconds", &out->earlier);
    if (!status) status = json_value_get_integer(json, "starts", &out->starts);
    if (!status) status = json_value_get_number(json, "kept_at", &kept_at);
    if (!status) status = read_marks(json_value_get(json, "checkpoints"), step, out);
    double unseen = status ? 0 : last_line(out->directory) - kept_at; /* of a process that was killed */
    if (unseen > 0) out->earlier += unseen;
    json_value_free(json);
    return status;
}

Status goodput_open(const char *directory, double started, int64_t step, Goodput *out) {
    char *path;
    *out = (Goodput){.directory = directory, .started = started};
    TRY(path_join(directory, "goodput.json", &path));
    Status status = step > 0 && file_exists(path) ? read_file(path, step, out) : STATUS_OK;
    free(path);
    if (status) { /* a figure is no reason to stop */
        log_warning("goodput is counted anew: %s", status_message(status));
        status_free(status);
        *out = (Goodput){.directory = directory, .started = started};
    }
    ++out->starts;
    return STATUS_OK;
}

void goodput_add_step(Goodput *goodput, double seconds) { goodput->step_seconds += seconds; }

static double all_seconds(const Goodput *g) { return g->earlier + clock_seconds() - g->started; }

static Status append_marks(const Goodput *g, JsonValue *list) {
    for (int i = 0; i < g->count; ++i) {
        JsonValue *mark = json_value_new_object();
        Status status = json_value_append(list, mark);
        if (status) return status;
        TRY(json_value_set_integer(mark, "step", g->marks[i].step));
        TRY(json_value_set_number(mark, "step_seconds", g->marks[i].step_seconds));
    }
    return STATUS_OK;
}

static Status to_text(const Goodput *g, Text *out) {
    JsonValue *json = json_value_new_object(), *list = json_value_new_array();
    Status status = json_value_set(json, "checkpoints", list);
    if (!status) status = append_marks(g, list);
    if (!status) status = json_value_set_number(json, "wall_seconds", all_seconds(g));
    if (!status) status = json_value_set_number(json, "kept_at", wall_clock());
    if (!status) status = json_value_set_integer(json, "starts", g->starts);
    if (!status) status = json_value_set_number(json, "goodput", goodput_share(g));
    if (!status) status = json_value_write(json, 0, out);
    json_value_free(json);
    return status;
}

/* Without fsync, whose milliseconds training would wait for: after a power cut the figure is lost, nothing else. */
static Status replace_file(const char *directory, const Text *text) {
    char *path;
    Text temporary = {0};
    TRY(path_join(directory, "goodput.json", &path));
    Status status = text_append_format(&temporary, "%s.tmp", path);
    FILE *file = status ? NULL : fopen(temporary.data, "we");
    bool written = file && fwrite(text->data, 1, text->length, file) == text->length;
    if (file && fclose(file) != 0) written = false;
    if (!status && (!written || rename(temporary.data, path) != 0)) status = FAILURE("%s: cannot write", path);
    text_free(&temporary);
    free(path);
    return status;
}

static void add_mark(Goodput *g, int64_t step) {
    if (g->count > 0 && g->marks[g->count - 1].step == step) --g->count;
    if (g->count == GOODPUT_MARKS) memmove(g->marks, g->marks + 1, (size_t)--g->count * sizeof *g->marks);
    g->marks[g->count++] = (GoodputMark){step, g->step_seconds};
}

void goodput_keep(Goodput *g, int64_t step) {
    Text text = {0};
    add_mark(g, step);
    Status status = to_text(g, &text);
    if (!status) status = replace_file(g->directory, &text);
    if (status) log_debug("goodput: %s", status_message(status)); /* the checkpoint beside it warns of the same disk */
    status_free(status);
    text_free(&text);
}

double goodput_share(const Goodput *g) {
    double all = all_seconds(g);
    return all > 0 ? g->step_seconds / all : 0;
}

void goodput_print(const Goodput *g) {
    log_info("goodput %.1f %%: %.1f s in steps that survived, of %.1f s in %lld start%s", 100 * goodput_share(g), g->step_seconds,
             all_seconds(g), (long long)g->starts, g->starts == 1 ? "" : "s");
}
