/* One table of matmul plans for a run: two ranks whose libraries suggest different algorithms compute the same gradient, so
 * does a run that is continued, and a file that is damaged or of another GPU is not used. */
#include "tests/unit/small_session.h"

#include "io/file.h"
#include "io/plan_file.h"
#include "kernels/matmul_plans.h"
#include "trainer/matmul_table.h"

/* include/cublasLt.h */
void host_set_first_algorithm(int number);

/* What rank 0 broadcast, for rank 1 to receive: each is run by itself. */
static Text sent;
static size_t received;

static Status send(Communicator *c, void *data, int64_t bytes, int root) {
    (void)c;
    assert_int_equal(root, 0);
    return text_append(&sent, data, (size_t)bytes);
}

static Status receive(Communicator *c, void *data, int64_t bytes, int root) {
    (void)c;
    assert_int_equal(root, 0);
    assert_true(received + (size_t)bytes <= sent.length);
    memcpy(data, sent.data + received, (size_t)bytes);
    received += (size_t)bytes;
    return STATUS_OK;
}

typedef struct Run {
    Options options;
    Session session;
    Communicator communicator;
    CommunicatorOps ops;
    Launch launch;
} Run;

static void open_run(Run *run, const char *model, const char *directory, int rank, int world, int first_algorithm) {
    char text[512];
    snprintf(text, sizeof text,
             "run = { backend = \"cuda\"; }; model = { path = \"%s\"; dtype = \"float32\"; }; "
             "lora = { r = 4; target_modules = [ \"all-linear\" ]; };",
             model);
    run->ops = small_alone;
    if (world > 1) run->ops.broadcast = rank == 0 ? send : receive;
    run->communicator = (Communicator){.ops = &run->ops, .rank = rank, .world = world};
    run->launch = (Launch){.rank = rank, .world = world, .local_rank = rank, .local_world = world};
    host_set_first_algorithm(first_algorithm);
    expect_ok(options_load_text("test", text, &run->options));
    SessionSettings settings = {
        .worst = {2, 24, 16, 7}, .training = true, .random_weights = true, .run_directory = rank == 0 ? directory : NULL};
    expect_ok(session_open(&run->options, &run->launch, &run->communicator, settings, &run->session));
}

static void close_run(Run *run) {
    session_close(&run->session);
    options_free(&run->options);
    host_set_first_algorithm(-1);
}

static size_t table_length(Run *run) {
    Text table = {0};
    expect_ok(matmul_planning(run->session.device)->write_table(run->session.device, &table));
    size_t length = table.length;
    text_free(&table);
    return length;
}

/* FNV-1a of the gradient's bits after micro-batches of several sizes, none of which meets a product without a plan. */
static uint64_t gradient(Run *run) {
    static const WorstBatch batches[] = {{2, 24, 16, 7}, {1, 5, 3, 0}, {1, 23, 22, 2}};
    Session *session = &run->session;
    Tensor flat = session->parameters->gradient;
    uint64_t hash = 14695981039346656037u;
    const size_t planned = table_length(run);
    for (size_t i = 0; i < sizeof batches / sizeof *batches; ++i) {
        PackedBatch packed = small_batch(batches[i]);
        ObjectiveInput input = {.batch = &packed, .step = 1, .training = true, .label_tokens = 50};
        double loss;
        expect_ok(objective_by_name("sft")->forward(session, &input, &loss));
        expect_ok(tape_backward(session->tape));
        packed_batch_free(&packed);
    }
    assert_int_equal(table_length(run), planned);
    unsigned char *host = malloc(tensor_bytes(flat));
    assert_non_null(host);
    expect_ok(device_download(session->device, host, flat.data, tensor_bytes(flat)));
    for (size_t i = 0; i < tensor_bytes(flat); ++i) hash = (hash ^ host[i]) * 1099511628211u;
    free(host);
    return hash;
}

static uint64_t run_alone(const char *model, const char *directory, int first_algorithm, bool keep) {
    Run run;
    open_run(&run, model, directory, 0, 1, first_algorithm);
    uint64_t hash = gradient(&run);
    if (keep) expect_ok(matmul_table_keep(&run.session));
    close_run(&run);
    return hash;
}

static void test_two_ranks(void **state) {
    Run run;
    const uint64_t by_1 = run_alone(*state, NULL, 1, false), by_2 = run_alone(*state, NULL, 2, false);
    assert_true(by_1 != by_2); /* else nothing below means anything */
    received = 0;
    open_run(&run, *state, NULL, 0, 2, 1);
    assert_true(gradient(&run) == by_1);
    close_run(&run);
    open_run(&run, *state, NULL, 1, 2, 2);
    assert_true(gradient(&run) == by_1);
    assert_int_equal(received, sent.length);
    close_run(&run);
    text_free(&sent);
}

static void test_table_is_kept(void **state) {
    char path[128];
    const uint64_t by_1 = run_alone(*state, NULL, 1, false), by_2 = run_alone(*state, NULL, 2, false);
    snprintf(path, sizeof path, "%s/matmul_plans.bin", (char *)*state);
    assert_true(run_alone(*state, *state, 1, true) == by_1);
    assert_true(run_alone(*state, *state, 2, false) == by_1); /* continued: by the run's table */
    /* Damaged: chosen anew, and written anew. */
    Text file = {0}, bytes;
    expect_ok(file_read(path, &file));
    file.data[file.length - 1] ^= 1;
    expect_ok(file_write_atomic(path, file.data, file.length));
    assert_true(run_alone(*state, *state, 2, true) == by_2);
    assert_true(run_alone(*state, *state, 1, false) == by_2);
    text_free(&file);
    /* Made with another GPU. */
    char library[MATMUL_LIBRARY_BYTES];
    expect_ok(plan_file_read(path, library, &bytes));
    assert_non_null(strstr(library, "emulated GPU, cuBLASLt "));
    expect_ok(plan_file_write(path, "NVIDIA H200, cuBLASLt 130201", bytes.data, bytes.length));
    assert_true(run_alone(*state, *state, 1, false) == by_1);
    /* Sound in itself, but no table. */
    expect_ok(plan_file_write(path, library, "none", 4));
    assert_true(run_alone(*state, *state, 1, false) == by_1);
    text_free(&bytes);
    unlink(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_two_ranks), cmocka_unit_test(test_table_is_kept)};
    return cmocka_run_group_tests(tests, small_model_make, small_model_remove);
}
