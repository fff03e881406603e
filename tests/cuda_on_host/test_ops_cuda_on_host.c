/* Every op of the CUDA backend on the host's emulation, against the float64 reference and the CPU backend, with the threads
 * in five orders, and as on two kinds of device, for the same bits. Emulation is slow: sequences are shortened, and the
 * longest run in two orders only.
 *
 *   test_ops_cuda_on_host [PATTERN | PART PARTS]
 *
 * PATTERN: only cases with such names ('*' and '?'). PART PARTS: only the cases number PART, PART + PARTS, ... */
#include "tests/cuda_on_host/self_test.h"
#include "tests/ops/op_cases.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdlib.h>

/* Forward on an A100, at random on an H100; then in reverse and twice more at random. */
static void set_run(int run) {
    static const int orders[] = {0, 2, 1, 3, 4};
    host_set_thread_order(orders[run]);
    host_set_capability(run % 2 == 0 ? 8 : 9);
}

#ifdef __SANITIZE_ADDRESS__ /* five times slower again */
enum { MOST_TOKENS = 140, MOST_TOKENS_REPEATED = 20 };
#else
enum { MOST_TOKENS = 280, MOST_TOKENS_REPEATED = 80 };
#endif

int main(int argc, char **argv) {
    if (argc == 2) cmocka_set_test_filter(argv[1]);
    const OpTestPlan plan = {.part = argc == 3 ? atoi(argv[1]) : 0,
                             .parts = argc == 3 ? atoi(argv[2]) : 0,
                             .kind = BACKEND_CUDA,
                             .runs = 5,
                             .before_run = set_run,
                             .most_tokens = MOST_TOKENS,
                             .most_tokens_repeated = MOST_TOKENS_REPEATED,
                             .beside_cpu = true};
    return run_op_plan(&plan);
}
