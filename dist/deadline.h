/* A last resort for a rank that has failed: if it does not end by itself in time, it is ended.
 *
 * A failed rank must still close what it holds, and any of those calls may wait for ever for a GPU that is gone, or for
 * ranks that will not come. The launcher ends the other ranks when one exits with an error. */
#ifndef DIST_DEADLINE_H
#define DIST_DEADLINE_H

typedef struct Deadline Deadline;

/* Starts a thread that waits `seconds`, then prints "error: MESSAGE" (copied here) and ends the process with exit_status.
 * NULL where no thread can be had. Whoever never cancels it leaves it to the end of the process. */
Deadline *deadline_start(double seconds, int exit_status, const char *message);
void deadline_cancel(Deadline *deadline); /* frees it; accepts NULL */

#endif
