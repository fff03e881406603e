/* The parity tests (tests/parity) on a GPU, all in one program: alone, each would carry the kernels' machine code once more.
 *
 *   parity_gpu parity|steps|invariance|rules|export */
#include <stdio.h>
#include <string.h>

/* The main functions of tests/parity/test_NAME.c under other names, see suite.cmake. */
int main_parity(void), main_steps(void), main_invariance(void), main_rules(void), main_export(void);

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        int (*run)(void);
    } tests[] = {{"parity", main_parity},
                 {"steps", main_steps},
                 {"invariance", main_invariance},
                 {"rules", main_rules},
                 {"export", main_export}};
    for (size_t i = 0; argc == 2 && i < sizeof tests / sizeof *tests; ++i)
        if (strcmp(argv[1], tests[i].name) == 0) return tests[i].run();
    fprintf(stderr, "usage: parity_gpu parity|steps|invariance|rules|export\n");
    return 2;
}
