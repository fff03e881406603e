/* adamem info: what a bug report needs. */
#include "trainer/commands/commands.h"

#include "dist/communicator_device.h"
#include "kernels/libraries.h"
#include "trainer/commands/command_line.h"
#include "trainer/ranks.h"
#include "trainer/session.h"
#include "trainer/version.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

static const char usage[] = "Usage: adamem info\n"
                            "\n"
                            "Prints versions, device, ranks and memory as one JSON object. With mpirun or srun: of all ranks.\n";

/* Fixed-size so that ranks can exchange it. */
typedef struct RankInfo {
    char host[128], device[128];
    int32_t rank, local_rank, threads;
    int64_t free_memory; /* bytes, of the device */
} RankInfo;

static Status describe_rank(const Ranks *ranks, RankInfo *out) {
    const char *why;
    Device *device;
    *out = (RankInfo){.rank = ranks->launch.rank, .local_rank = ranks->launch.local_rank};
    TRY(device_open(device_cuda_available(&why) ? BACKEND_CUDA : BACKEND_CPU, ranks->launch.local_rank, 0, &device));
    snprintf(out->host, sizeof out->host, "%.127s", ranks->launch.host);
    snprintf(out->device, sizeof out->device, "%s", device->name);
    out->threads = device->threads;
    Status status = device_free_memory(device, &out->free_memory);
    device_close(device);
    return status;
}

static Status fill_ranks(JsonValue *object, const RankInfo *infos, int world) {
    JsonValue *list;
    TRY_ALLOC(list = json_value_new_array());
    TRY(json_value_set(object, "ranks", list));
    for (int i = 0; i < world; ++i) {
        JsonValue *entry;
        TRY_ALLOC(entry = json_value_new_object());
        TRY(json_value_append(list, entry));
        TRY(json_value_set_integer(entry, "rank", infos[i].rank));
        TRY(json_value_set_integer(entry, "local_rank", infos[i].local_rank));
        TRY(json_value_set_string(entry, "host", infos[i].host));
        TRY(json_value_set_string(entry, "device", infos[i].device));
        TRY(json_value_set_integer(entry, "threads", infos[i].threads));
        TRY(json_value_set_integer(entry, "free_memory_bytes", infos[i].free_memory));
    }
    return STATUS_OK;
}

/* What is found on this machine, whether or not a GPU is there to use it. */
static Status fill_libraries(JsonValue *object) {
    char blas[LIBRARY_ABOUT_BYTES], cudnn[LIBRARY_ABOUT_BYTES], nccl[DEVICE_COMMUNICATOR_ABOUT_BYTES];
    library_about_blas(blas);
    library_about_cudnn(cudnn);
    communicator_device_library(nccl);
    TRY(json_value_set_string(object, "cublaslt", blas));
    TRY(json_value_set_string(object, "cudnn", cudnn));
    return json_value_set_string(object, "nccl", nccl);
}

static Status fill(JsonValue *object, const RankInfo *infos, int world) {
    const char *why = "";
    struct utsname system;
    TRY(json_value_set_string(object, "version", version_text()));
    TRY(json_value_set_string(object, "build", version_build()));
    TRY(json_value_set_string(object, "mpi", communicator_library()));
    if (uname(&system) == 0) TRY(json_value_set_string(object, "system", system.release));
    if (device_cuda_available(&why))
        TRY(json_value_set_string(object, "cuda", "available"));
    else
        TRY(json_value_set_string(object, "cuda", why));
    TRY(fill_libraries(object));
    TRY(json_value_set_integer(object, "cores", sysconf(_SC_NPROCESSORS_ONLN)));
    TRY(json_value_set_integer(object, "memory_bytes", (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGE_SIZE)));
    TRY(json_value_set_integer(object, "world_size", world));
    return fill_ranks(object, infos, world);
}

static Status report(const Ranks *ranks) {
    RankInfo own, *all;
    TRY(ranks_agree(ranks, describe_rank(ranks, &own)));
    TRY_ALLOC(all = calloc((size_t)ranks->launch.world, sizeof *all));
    Status status = ranks->communicator->ops->all_gather(ranks->communicator, &own, all, sizeof own);
    JsonValue *object = status || ranks->launch.rank != 0 ? NULL : json_value_new_object();
    if (object) status = command_print_json(object, fill(object, all, ranks->launch.world));
    free(all);
    return status;
}

Status command_info(int argc, char **argv) {
    static const struct option options[] = {{"help", no_argument, NULL, 'h'}, {0}};
    int character;
    Ranks ranks;
    optind = 0;
    TRY(command_line_next(argc, argv, options, &character));
    if (character == 'h') {
        fputs(usage, stdout);
        return STATUS_OK;
    }
    TRY(ranks_start(&ranks));
    Status status = report(&ranks);
    ranks_end(&ranks);
    return status;
}
