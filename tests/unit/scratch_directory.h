/* A folder of its own for a test program: cmocka group fixtures, paths inside it. */
#ifndef TESTS_UNIT_SCRATCH_DIRECTORY_H
#define TESTS_UNIT_SCRATCH_DIRECTORY_H

#include "io/status.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char directory[64];

static int make_directory(void **state) {
    (void)state;
    strcpy(directory, "/tmp/adamem-test-XXXXXX");
    return mkdtemp(directory) ? 0 : -1;
}

static int remove_directory(void **state) {
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", directory);
    return system(command);
}

/* Valid until eight more were asked for. */
static const char *in_directory(const char *name) {
    static char path[8][512];
    static int next;
    char *slot = path[next++ % 8];
    snprintf(slot, sizeof path[0], "%s/%s", directory, name);
    return slot;
}

static void assert_ok(Status status) {
    if (status) fail_msg("%s", status_message(status));
}

#endif
