/* Any text is a configuration or one clean error; the effective configuration reads back to itself.
 * A text that begins with "!" is tried as the argument of --set. */
#include "trainer/options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
const char *__lsan_default_suppressions(void);

/* libconfig 1.5 itself loses the string it was reading at a syntax error. */
const char *__lsan_default_suppressions(void) { return "leak:libconfig.so"; }

static void check(bool condition, const char *what) {
    if (condition) return;
    fprintf(stderr, "%s\n", what);
    abort();
}

static void check_round_trip(const Options *options) {
    Options copy;
    Text text = {0}, again = {0};
    check(!options_text(options, &text), "cannot write what was read");
    check(!options_load_text("echo", text.data, &copy), "cannot read what was written");
    check(!options_text(&copy, &again), "cannot write the copy");
    check(!strcmp(text.data, again.data), "the copy differs");
    options_free(&copy);
    text_free(&text);
    text_free(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *text = malloc(size + 1);
    check(text != NULL, "no memory");
    if (size) memcpy(text, data, size);
    text[size] = 0;
    /* Including an endless device is the user's wish, not a finding. */
    bool endless = strstr(text, "/dev") || strstr(text, "/proc");
    Options options;
    const char *set = text + 1;
    Status status = STATUS_OK;
    if (!endless) status = text[0] == '!' ? options_load(NULL, &set, 1, &options) : options_load_text("t", text, &options);
    if (!endless && !status) {
        check_round_trip(&options);
        status_free(options_validate(&options, OPTIONS_FOR_TRAIN));
        options_free(&options);
    }
    if (status) check(status_exit_code(status) == STATUS_INVALID && status_message(status)[0], "not a clean error");
    status_free(status);
    free(text);
    return 0;
}
