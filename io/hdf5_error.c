#include "io/hdf5_error.h"

#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Reason {
    char *text;
    size_t size;
    int system_error;
} Reason;

/* The file drivers put errno into the middle of a long sentence; it is the part a user can act on. */
static herr_t visit(unsigned depth, const H5E_error2_t *error, void *context) {
    Reason *reason = context;
    const char *description = error->desc ? error->desc : "";
    const char *number = strstr(description, "errno = ");
    if (number && !reason->system_error) reason->system_error = atoi(number + strlen("errno = "));
    if (depth == 0) snprintf(reason->text, reason->size, "%s", description);
    return 0;
}

void hdf5_error_reason(char *text, size_t size) {
    Reason reason = {text, size, 0};
    snprintf(text, size, "HDF5 gives no reason");
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, visit, &reason);
    if (reason.system_error) snprintf(text, size, "%s", strerror(reason.system_error));
}
