/* The NCCL communicator on several ranks without a GPU: a stand-in for NCCL, and the CPU behaving as a device with a stream.
 *
 *   test_nccl LIBRARY         all checks against the MPI communicator; exit status 0
 *   test_nccl LIBRARY steps   reductions as a training run does them, and its end; for injected faults
 *   test_nccl LIBRARY leave   likewise, but the last rank fails for a reason of its own in the third step */
#include "dist/communicator_device.h"
#include "dist/communicator_nccl.h"
#include "dist/gradient_reduction.h"
#include "dist/launch.h"
#include "io/log.h"
#include "io/random.h"
#include "kernels/device_memory.h"
#include "tests/nccl_stand_in/nccl_stand_in.h"

#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ELEMENTS (((int64_t)1 << 18) + 77) /* several pieces of the settings below */
#define STEPS    6

static Launch launch;
static Communicator *control;

static void end_job(const char *file, int line, const char *what) {
    fprintf(stderr, "%s:%d: rank %d: check failed: %s\n", file, line, launch.rank, what);
    launch_finish(1, 0);
    exit(1);
}

#define CHECK(condition)                                                                                                         \
    do {                                                                                                                         \
        if (!(condition)) end_job(__FILE__, __LINE__, #condition);                                                               \
    } while (0)
#define OK(call)                                                                                                                 \
    do {                                                                                                                         \
        Status ok_status_ = (call);                                                                                              \
        if (ok_status_) end_job(__FILE__, __LINE__, status_message(ok_status_));                                                 \
    } while (0)

/* The CPU with a stream: the stand-in's. Copies come after what was issued before them, as on a GPU. */
static const DeviceMemory *cpu_memory;
static __typeof__(&nccl_stand_in_idle) stream_idle;
static char identity[DEVICE_IDENTITY_BYTES];

static void wait_for_stream(void) {
    while (!stream_idle()) usleep(50);
}

static Status streamed_copy(Device *device, void *destination, const void *source, size_t bytes) {
    wait_for_stream();
    return cpu_memory->copy(device, destination, source, bytes);
}

static Status streamed_zero(Device *device, void *data, size_t bytes) {
    wait_for_stream();
    return cpu_memory->zero(device, data, bytes);
}

static Status streamed_synchronize(Device *device) {
    (void)device;
    wait_for_stream();
    return STATUS_OK;
}

static Status streamed_stream(Device *device, void **stream) {
    *stream = device;
    return STATUS_OK;
}

static Status streamed_poll(Device *device, bool *idle) {
    (void)device;
    *idle = stream_idle();
    return STATUS_OK;
}

static Status streamed_identity(Device *device, char text[DEVICE_IDENTITY_BYTES]) {
    (void)device;
    memcpy(text, identity, sizeof identity);
    return STATUS_OK;
}

static Device *open_device(const char *library, DeviceMemory *memory) {
    Device *device;
    void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    CHECK(handle);
    void *address = dlsym(handle, "nccl_stand_in_idle");
    CHECK(address);
    memcpy(&stream_idle, &address, sizeof address);
    snprintf(identity, sizeof identity, "0000:%02x:00.0", launch.rank);
    OK(device_open(BACKEND_CPU, 0, 1, &device));
    cpu_memory = device->memory;
    *memory = *cpu_memory;
    memory->is_host = false;
    memory->upload = memory->download = memory->copy = streamed_copy;
    memory->zero = streamed_zero;
    memory->synchronize = streamed_synchronize;
    memory->stream = streamed_stream;
    memory->poll = streamed_poll;
    memory->identity = streamed_identity;
    device->memory = memory;
    return device;
}

static void close_device(Device *device) {
    device->memory = cpu_memory;
    device_close(device);
}

static DeviceCommunicatorSettings settings_for(const char *library) {
    DeviceCommunicatorSettings settings = device_communicator_settings;
    settings.library = library;
    settings.piece_bytes = (int64_t)1 << 20;
    settings.setup_seconds = 3;
    return settings;
}

static int64_t value_at(int rank, int64_t i) {
    uint32_t counter[4] = {(uint32_t)i, (uint32_t)rank, 0, 0}, bits[4];
    philox4x32(7, 9, counter, bits);
    return (int64_t)((uint64_t)bits[0] << 29 | bits[1] >> 3) * (bits[2] & 1 ? 1 : -1);
}

static void check_sums(Communicator *nccl, int64_t count) {
    size_t n = (size_t)count + 1;
    int64_t *integers = malloc(n * sizeof *integers), *expected = malloc(n * sizeof *expected);
    float *floats = malloc(n * sizeof *floats), *expected_floats = malloc(n * sizeof *expected_floats);
    int32_t *maxima = malloc(n * sizeof *maxima), *expected_maxima = malloc(n * sizeof *expected_maxima);
    CHECK(integers && expected && floats && expected_floats && maxima && expected_maxima);
    for (int64_t i = 0; i <= count; ++i) { /* one more than is summed: it must stay */
        integers[i] = expected[i] = value_at(nccl->rank, i);
        floats[i] = expected_floats[i] = (float)(value_at(nccl->rank, i) >> 50); /* sums of small integers are exact */
        maxima[i] = expected_maxima[i] = (int32_t)(value_at(nccl->rank, i) >> 32);
    }
    OK(control->ops->sum_i64(control, expected, count));
    OK(control->ops->sum_f32(control, expected_floats, count));
    OK(control->ops->max_i32(control, expected_maxima, count));
    OK(nccl->ops->sum_i64(nccl, integers, count));
    OK(nccl->ops->sum_f32(nccl, floats, count));
    OK(nccl->ops->max_i32(nccl, maxima, count));
    CHECK(memcmp(integers, expected, n * sizeof *integers) == 0);
    CHECK(memcmp(floats, expected_floats, n * sizeof *floats) == 0);
    CHECK(memcmp(maxima, expected_maxima, n * sizeof *maxima) == 0);
    free(integers), free(expected), free(floats), free(expected_floats), free(maxima), free(expected_maxima);
}

static char byte_at(int rank, int64_t i) { return (char)(i * 31 + i / 251 + rank * 7); }

static void check_bytes(Communicator *nccl, int64_t bytes) {
    char *in = malloc((size_t)bytes + 1), *out = malloc((size_t)bytes * (size_t)nccl->world + 1);
    CHECK(in && out);
    for (int64_t i = 0; i < bytes; ++i) in[i] = byte_at(nccl->rank, i);
    memset(out, 0x55, (size_t)bytes * (size_t)nccl->world + 1);
    OK(nccl->ops->all_gather(nccl, in, out, bytes));
    for (int rank = 0; rank < nccl->world; ++rank)
        for (int64_t i = 0; i < bytes; ++i) CHECK(out[rank * bytes + i] == byte_at(rank, i));
    CHECK(out[nccl->world * bytes] == 0x55);
    for (int root = 0; root < nccl->world; ++root) {
        for (int64_t i = 0; i < bytes; ++i) in[i] = byte_at(nccl->rank, i);
        OK(nccl->ops->broadcast(nccl, in, bytes, root));
        for (int64_t i = 0; i < bytes; ++i) CHECK(in[i] == byte_at(root, i));
    }
    free(in);
    free(out);
}

typedef struct Gradient {
    Device *device;
    float *data; /* [n] device */
    int64_t n;
} Gradient;

static Gradient gradient_open(Device *device, int64_t n) {
    Gradient gradient = {.device = device, .n = n};
    OK(device_allocate(device, (size_t)n * sizeof(float), (void **)&gradient.data));
    OK(device_fill_zero(device, gradient.data, (size_t)n * sizeof(float)));
    return gradient;
}

/* One global batch of two micro-batches per rank; the total is left in the gradient. */
static Status reduce(const Gradient *gradient, GradientReduction *reduction, int step, double *loss) {
    bool finite;
    for (int micro_batch = 0; micro_batch < 2; ++micro_batch) {
        int stream = (step * 2 + micro_batch) * launch.world + launch.rank;
        for (int64_t i = 0; i < gradient->n; ++i) gradient->data[i] = ldexpf((float)(value_at(stream, i) >> 40), -22);
        *loss = sin(stream);
        TRY(gradient_reduction_add(reduction, loss));
    }
    TRY(gradient_reduction_finish(reduction, loss, &finite));
    CHECK(finite);
    return STATUS_OK;
}

/* Directly and through host memory: the same bits in exact mode; in float mode the order may differ, and ranks agree. */
static void check_reduction(Device *device, Communicator *nccl, ReductionKind kind) {
    float *totals[2];
    double loss[2];
    for (int direct = 0; direct < 2; ++direct) {
        Gradient gradient = gradient_open(device, ELEMENTS);
        GradientReduction *reduction;
        ReductionRoute route = {.control = control, .device = direct ? nccl : NULL};
        OK(gradient_reduction_create(device, route, kind, tensor_1d(gradient.data, DTYPE_F32, ELEMENTS), 1, &reduction));
        OK(reduce(&gradient, reduction, 0, &loss[direct]));
        gradient_reduction_destroy(reduction);
        totals[direct] = gradient.data;
    }
    CHECK(loss[0] == loss[1]);
    for (int64_t i = 0; i < ELEMENTS; ++i) CHECK(fabsf(totals[0][i] - totals[1][i]) <= (kind == REDUCTION_EXACT ? 0 : 1e-4f));
    CHECK(totals[0][5] != 0);
    memcpy(totals[0], totals[1], ELEMENTS * sizeof(float));
    OK(control->ops->broadcast(control, totals[0], ELEMENTS * (int64_t)sizeof(float), 0));
    CHECK(memcmp(totals[0], totals[1], ELEMENTS * sizeof(float)) == 0);
    for (int direct = 0; direct < 2; ++direct) device_release(device, totals[direct]);
}

/* Where NCCL cannot serve, all ranks learn the same reason, and it is no error. */
static void check_choice(Device *device, const char *library) {
    char why[DEVICE_COMMUNICATOR_WHY_BYTES];
    DeviceCommunicatorSettings settings = settings_for(library);
    Communicator *none = control;
    if (launch.rank == launch.world - 1) settings.library = "libnccl-that-is-not-there.so.2";
    OK(communicator_device_create(control, device, &settings, &none, why));
    char expected[128];
    snprintf(expected, sizeof expected, "on rank %d, NCCL is absent: libnccl-that-is-not-there.so.2", launch.world - 1);
    CHECK(!none && strncmp(why, expected, strlen(expected)) == 0);

    settings = settings_for(library);
    snprintf(identity, sizeof identity, "0000:%02x:00.0", launch.rank / 2);
    OK(communicator_device_create(control, device, &settings, &none, why));
    CHECK(!none && strcmp(why, "ranks 0 and 1 share one GPU (0000:00:00.0)") == 0);
    snprintf(identity, sizeof identity, "0000:%02x:00.0", launch.rank);

    Communicator alone = {.ops = control->ops, .world = 1};
    OK(communicator_device_create(&alone, device, &settings, &none, why));
    CHECK(!none && strcmp(why, "there is one rank") == 0);
}

static void check_all(Device *device, const char *library) {
    char why[DEVICE_COMMUNICATOR_WHY_BYTES];
    DeviceCommunicatorSettings settings = settings_for(library);
    check_choice(device, library);
    for (int round = 0; round < 2; ++round) { /* a second one after the first has ended */
        Communicator *nccl;
        OK(communicator_device_create(control, device, &settings, &nccl, why));
        CHECK(nccl && nccl->rank == launch.rank && nccl->world == launch.world);
        CHECK(nccl->ops->device_pointers && !control->ops->device_pointers);
        check_sums(nccl, round ? 1 : ELEMENTS);
        check_bytes(nccl, round ? 0 : (int64_t)(settings.piece_bytes / launch.world)); /* a gather in one piece */
        check_bytes(nccl, round ? 1 : settings.piece_bytes + 3);
        OK(nccl->ops->barrier(nccl));
        check_reduction(device, nccl, round ? REDUCTION_FLOAT : REDUCTION_EXACT);
        communicator_destroy(nccl);
    }
    if (launch.rank == 0) printf("all checks passed on %d ranks\n", launch.world);
}

static Status take_steps(const Gradient *gradient, GradientReduction *reduction, bool leave) {
    for (int step = 0; step < STEPS; ++step) {
        double loss;
        if (leave && step == 2 && launch.rank == launch.world - 1) FAIL("stopped by the test on rank %d", launch.rank);
        TRY(reduce(gradient, reduction, step, &loss));
    }
    return STATUS_OK;
}

/* As a session: created, used, ended in order, whether good or not. */
static Status run_steps(Device *device, const char *library, bool leave) {
    char why[DEVICE_COMMUNICATOR_WHY_BYTES];
    DeviceCommunicatorSettings settings = settings_for(library);
    Communicator *nccl;
    GradientReduction *reduction = NULL;
    Gradient gradient = gradient_open(device, 1000);
    Status status = communicator_device_create(control, device, &settings, &nccl, why);
    if (!status) {
        CHECK(nccl);
        ReductionRoute route = {.control = control, .device = nccl};
        status = gradient_reduction_create(device, route, REDUCTION_EXACT, tensor_1d(gradient.data, DTYPE_F32, gradient.n), 1,
                                           &reduction);
    }
    if (!status) status = take_steps(&gradient, reduction, leave);
    gradient_reduction_destroy(reduction);
    communicator_destroy(nccl);
    device_release(device, gradient.data);
    if (!status && launch.rank == 0) printf("all steps done\n");
    return status;
}

int main(int argc, char **argv) {
    DeviceMemory memory;
    Status status = launch_start(&argc, &argv, &launch);
    if (!status) status = communicator_mpi_create(&control);
    log_set_rank(launch.rank, launch.world);
    if (!status && argc < 2) status = INVALID_INPUT("usage: test_nccl LIBRARY [steps|leave]");
    if (!status) {
        Device *device = open_device(argv[1], &memory);
        if (argc == 2)
            check_all(device, argv[1]);
        else
            status = run_steps(device, argv[1], strcmp(argv[2], "leave") == 0);
        close_device(device);
    }
    communicator_destroy(control);
    int code = status_exit_code(status);
    log_status(status);
    launch_finish(code, !status);
    status_free(status);
    return code;
}
