/* Status: how every fallible function of the program reports failure.
 *
 * A Status is NULL on success, else an owned error object with a class (which decides the exit status of the
 * process), a message for the user, and the chain of source positions it passed through. The caller that does not
 * pass a Status on must call status_free. Only main() exits. */
#ifndef IO_STATUS_H
#define IO_STATUS_H

#include <stddef.h>

typedef enum StatusClass {
    STATUS_FAILED = 1,    /* failed while running: I/O error, out of memory, lost device */
    STATUS_INVALID = 2,   /* wrong usage, configuration or input; the message names file, line or key */
    STATUS_STOPPED = 75,  /* stopped on request, checkpoint written: start me again */
    STATUS_DIVERGED = 76, /* training diverged; last good checkpoint kept */
} StatusClass;

typedef struct StatusError *Status;

#define STATUS_OK ((Status)NULL)

/* New error. Never returns NULL: without memory it returns a static "out of memory" error. */
Status status_new(StatusClass class_, const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 4, 5), returns_nonnull));

/* Puts "prefix: " before the message, e.g. the file being read; returns the same error. NULL stays NULL. */
Status status_prefix(Status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Adds a source position to the chain; returns its argument. */
Status status_trace(Status status, const char *file, int line);

/* Marks an error that every rank of the job holds alike (they agreed on it): one rank prints it, and all leave in step. */
Status status_mark_shared(Status status);
int status_is_shared(Status status);

void status_free(Status status); /* accepts NULL */
const char *status_message(Status status);
/* Source positions, innermost first, separated by " < ". */
const char *status_positions(Status status);
/* 0 for NULL, else the StatusClass: the exit status of the process. */
int status_exit_code(Status status);

#define FAIL(...)    return status_new(STATUS_FAILED, __FILE__, __LINE__, __VA_ARGS__)
#define INVALID(...) return status_new(STATUS_INVALID, __FILE__, __LINE__, __VA_ARGS__)
/* The same as values, for `status = ...; goto done;` */
#define FAILURE(...)       status_new(STATUS_FAILED, __FILE__, __LINE__, __VA_ARGS__)
#define INVALID_INPUT(...) status_new(STATUS_INVALID, __FILE__, __LINE__, __VA_ARGS__)

/* TRY returns the error of x from the calling function; TRY_GOTO stores it in the local `status` and jumps. */
#define TRY(x)                                                                                                                   \
    do {                                                                                                                         \
        Status try_status_ = (x);                                                                                                \
        if (try_status_) {                                                                                                       \
            status_trace(try_status_, __FILE__, __LINE__);                                                                       \
            return try_status_; /* known to be an error here, which keeps the compiler from false warnings */                    \
        }                                                                                                                        \
    } while (0)
#define TRY_GOTO(x, label)                                                                                                       \
    do {                                                                                                                         \
        status = (x);                                                                                                            \
        if (status) {                                                                                                            \
            status_trace(status, __FILE__, __LINE__);                                                                            \
            goto label;                                                                                                          \
        }                                                                                                                        \
    } while (0)
/* For allocations: TRY_ALLOC(p = malloc(n)) fails with the expression's text. */
#define TRY_ALLOC(expression)                                                                                                    \
    do {                                                                                                                         \
        if (!(expression)) FAIL("out of memory: %s", #expression);                                                               \
    } while (0)

#endif
