/* Decides whether NCCL can serve, alike on every rank. */
#include "dist/communicator_device.h"

#ifdef ADAMEM_HAVE_NCCL
#include "dist/communicator_nccl.h"
#endif

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* "Within 10 s" holds an operation that hangs, then an abort that hangs, then the launcher's work. 6 s for a piece is
 * 43 MiB/s, slower than any network that one would train over; pieces of this size reach a fast one's full speed. */
const DeviceCommunicatorSettings device_communicator_settings = {
    .library = "libnccl.so.2",
    .piece_bytes = (int64_t)256 << 20,
    .setup_seconds = 120,
    .operation_seconds = 6,
    .finish_seconds = 3,
    .exit_seconds = 3,
};

#ifdef ADAMEM_HAVE_NCCL
/* What each rank tells the others. */
typedef struct Report {
    char machine[64];
    char device[DEVICE_IDENTITY_BYTES];
    char obstacle[160]; /* why this rank cannot use NCCL; empty: it can */
} Report;

/* The boot's number is the same in all containers of a machine, and host names need not be. */
static void name_machine(char *text, size_t bytes) {
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "r");
    bool found = file && fgets(text, (int)bytes, file);
    if (file) fclose(file);
    if (!found && gethostname(text, bytes - 1) != 0) snprintf(text, bytes, "unknown");
    text[strcspn(text, "\n")] = 0;
}

static Status describe(Device *device, const char *library_name, NcclLibrary **library, Report *report) {
    *report = (Report){0};
    name_machine(report->machine, sizeof report->machine);
    TRY(device_identity(device, report->device));
    Status absent = nccl_library_open(library_name, library);
    if (absent) snprintf(report->obstacle, sizeof report->obstacle, "%s", status_message(absent));
    status_free(absent);
    return STATUS_OK;
}

static bool same_device(const Report *a, const Report *b) {
    return strcmp(a->machine, b->machine) == 0 && strcmp(a->device, b->device) == 0;
}

/* Writes why NCCL cannot serve; false where it can. */
static bool find_obstacle(const Report *reports, int world, char about[DEVICE_COMMUNICATOR_ABOUT_BYTES]) {
    for (int rank = 0; rank < world; ++rank) {
        if (!reports[rank].obstacle[0]) continue;
        snprintf(about, DEVICE_COMMUNICATOR_ABOUT_BYTES, "on rank %d, %s", rank, reports[rank].obstacle);
        return true;
    }
    for (int rank = 0; rank < world; ++rank)
        for (int other = 0; other < rank; ++other) {
            if (!same_device(&reports[rank], &reports[other])) continue;
            snprintf(about, DEVICE_COMMUNICATOR_ABOUT_BYTES, "ranks %d and %d share one GPU (%s)", other, rank,
                     reports[rank].device);
            return true;
        }
    return false;
}

static Status choose(Communicator *control, Device *device, const DeviceCommunicatorSettings *settings, NcclLibrary **library,
                     char about[DEVICE_COMMUNICATOR_ABOUT_BYTES]) {
    Report own, *all = NULL;
    Status status = describe(device, settings->library, library, &own);
    if (!status && !(all = calloc((size_t)control->world, sizeof *all))) status = FAILURE("out of memory for all ranks' reports");
    status = communicator_agree(control, status);
    if (!status) status = control->ops->all_gather(control, &own, all, sizeof own);
    if (!status && find_obstacle(all, control->world, about)) {
        nccl_library_close(*library);
        *library = NULL;
    }
    free(all);
    return status;
}

static Status create(Communicator *control, Device *device, const DeviceCommunicatorSettings *settings, Communicator **out,
                     char about[DEVICE_COMMUNICATOR_ABOUT_BYTES]) {
    NcclLibrary *library = NULL;
    Status status = choose(control, device, settings, &library, about);
    if (status || !library) {
        nccl_library_close(library);
        return status;
    }
    nccl_library_version(library, about, DEVICE_COMMUNICATOR_ABOUT_BYTES);
    return communicator_nccl_create(control, device, library, settings, out);
}
#endif

void communicator_device_library(char about[DEVICE_COMMUNICATOR_ABOUT_BYTES]) {
#ifdef ADAMEM_HAVE_NCCL
    NcclLibrary *library = NULL;
    Status absent = nccl_library_open(device_communicator_settings.library, &library);
    if (absent)
        snprintf(about, DEVICE_COMMUNICATOR_ABOUT_BYTES, "none: %s", status_message(absent));
    else
        nccl_library_version(library, about, DEVICE_COMMUNICATOR_ABOUT_BYTES);
    status_free(absent);
    nccl_library_close(library);
#else
    snprintf(about, DEVICE_COMMUNICATOR_ABOUT_BYTES, "none: this program was built without NCCL");
#endif
}

Status communicator_device_create(Communicator *control, Device *device, const DeviceCommunicatorSettings *settings,
                                  Communicator **out, char about[DEVICE_COMMUNICATOR_ABOUT_BYTES]) {
    const char *reason = NULL;
    *out = NULL;
    about[0] = 0;
    if (control->world == 1)
        reason = "there is one rank";
    else if (device_is_host(device) || device->kind == BACKEND_PLAN)
        reason = "the device uses host memory";
#ifdef ADAMEM_HAVE_NCCL
    if (!reason) return create(control, device, settings, out, about);
#else
    (void)settings;
    if (!reason) reason = "this program was built without NCCL";
#endif
    snprintf(about, DEVICE_COMMUNICATOR_ABOUT_BYTES, "%s", reason);
    return STATUS_OK;
}
