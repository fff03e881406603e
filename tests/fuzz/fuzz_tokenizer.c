/* Any bytes are ids or one clean error; the ids decode to NFC of the text; the hand-written splits are the pattern's. */
#include "io/tokenizer_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool condition, const char *what) {
    if (condition) return;
    fprintf(stderr, "%s\n", what);
    abort();
}

/* Loaded once: the fuzzer calls the entry millions of times and gives it no context. */
static Tokenizer *tokenizer;
static TokenizerScratch *scratch;

static void load(void) {
    if (tokenizer) return;
    check(!tokenizer_load(TEST_DATA "/tokenizer-small", &tokenizer), "cannot load the tokenizer");
    check(!tokenizer_scratch_new(tokenizer, &scratch), "out of memory");
}

static Text nfc(const char *text, size_t length) {
    utf8proc_uint8_t *mapped = NULL;
    utf8proc_ssize_t count =
        utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)length, &mapped, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    check(count >= 0, "utf8proc refuses the text");
    Text out = {0};
    check(!text_append(&out, (char *)mapped, (size_t)count), "out of memory");
    free(mapped);
    return out;
}

static void check_splits(const char *text, size_t length) {
    for (size_t start = 0, end, expected; start < length; start = end) {
        check(!splitter_next(&tokenizer->splitter, &scratch->splitter, text, length, start, &end), "cannot split");
        check(!splitter_next_pcre2(&tokenizer->splitter, &scratch->splitter, text, length, start, &expected), "cannot split");
        check(end == expected && end > start, "the splits differ from the pattern's");
    }
}

/* An added token is cut out before NFC, so what follows it does not compose with it. */
static void check_decoded(const TokenList *ids, const char *text, size_t length) {
    bool added = false;
    for (size_t i = 0; i < ids->count; ++i) added |= ids->ids[i] >= tokenizer->model_size;
    Text decoded = {0};
    check(!tokenizer_decode(tokenizer, ids->ids, ids->count, false, &decoded), "cannot decode");
    Text expected = nfc(text, length), composed = nfc(decoded.data ? decoded.data : "", decoded.length);
    const Text *actual = added ? &composed : &decoded;
    check(actual->length == expected.length && (!expected.length || !memcmp(actual->data, expected.data, expected.length)),
          "decoding does not give NFC of the text");
    text_free(&decoded);
    text_free(&expected);
    text_free(&composed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    load();
    const char *text = (const char *)data;
    TokenList ids = {0};
    Status status = tokenizer_encode(tokenizer, scratch, text, size, &ids);
    if (status)
        check(status_exit_code(status) == STATUS_INVALID && strstr(status_message(status), "byte"), "not a clean error");
    else {
        check_splits(text, size);
        check_decoded(&ids, text, size);
    }
    status_free(status);
    token_list_free(&ids);
    return 0;
}
