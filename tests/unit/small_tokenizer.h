/* cmocka fixtures: the small tokenizer of the test data, in *state. */
#ifndef TESTS_UNIT_SMALL_TOKENIZER_H
#define TESTS_UNIT_SMALL_TOKENIZER_H

#include "io/tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

typedef struct World {
    Tokenizer *tokenizer;
    TokenizerScratch *scratch;
} World;

static int set_up(void **state) {
    World *world = calloc(1, sizeof *world);
    assert_non_null(world);
    assert_null(tokenizer_load(TEST_DATA "/tokenizer-small", &world->tokenizer));
    assert_null(tokenizer_scratch_new(world->tokenizer, &world->scratch));
    *state = world;
    return 0;
}

static int tear_down(void **state) {
    World *world = *state;
    tokenizer_scratch_free(world->scratch);
    tokenizer_free(world->tokenizer);
    free(world);
    return 0;
}

#endif
