/* WordPiece and byte-level tokenizers of encoders against ids that Transformers gave, and against bad directories. */
#include "io/encoder_tokenizer.h"
#include "io/file.h"
#include "io/json_value.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DATA TEST_DATA "/encoder"

static void succeed(Status status) {
    if (status) fail_msg("%s [%s]", status_message(status), status_positions(status));
}

static void expect_error(Status status, const char *part) {
    assert_int_equal(status_exit_code(status), STATUS_INVALID);
    if (!strstr(status_message(status), part)) fail_msg("\"%s\" does not say \"%s\"", status_message(status), part);
    status_free(status);
}

static EncoderTokenizer *load(const char *directory, EncoderTokenizerKind kind) {
    EncoderTokenizer *tokenizer = NULL;
    succeed(encoder_tokenizer_load(directory, kind, &tokenizer));
    return tokenizer;
}

/* Index of the first id that differs; -1 when all agree. */
static int64_t first_difference(const TokenList *got, const JsonValue *expected) {
    size_t count = json_value_size(expected);
    for (size_t i = 0; i < got->count || i < count; ++i)
        if (i >= got->count || i >= count || got->ids[i] != json_value_integer(json_value_at(expected, i))) return (int64_t)i;
    return -1;
}

typedef struct GoldenCase {
    const char *name;
    EncoderTokenizerKind kind;
    bool prefix_space; /* as the bert-score package asks for */
    int64_t max_length;
} GoldenCase;

static const GoldenCase golden_cases[] = {
    {"bert", ENCODER_TOKENIZER_WORDPIECE, false, 60},
    {"bert-cased", ENCODER_TOKENIZER_WORDPIECE, false, INT64_MAX},
    {"bert-json", ENCODER_TOKENIZER_WORDPIECE, false, INT64_MAX},
    {"roberta", ENCODER_TOKENIZER_BYTE_LEVEL, true, 64},
    {"roberta-json", ENCODER_TOKENIZER_BYTE_LEVEL, false, INT64_MAX},
    {"bart", ENCODER_TOKENIZER_BYTE_LEVEL, false, 64},
};

static void check_case(const JsonValue *goldens, const GoldenCase *c) {
    char directory[512];
    snprintf(directory, sizeof directory, "%s/%s", DATA, c->name);
    EncoderTokenizer *tokenizer = load(directory, c->kind);
    const JsonValue *texts = json_value_get(goldens, "texts"), *ids = json_value_get(json_value_get(goldens, "ids"), c->name);
    assert_int_equal(json_value_size(texts), json_value_size(ids));
    assert_true(json_value_size(texts) >= 20);
    assert_true(encoder_tokenizer_max_length(tokenizer) == c->max_length);
    TokenList list = {0};
    for (size_t i = 0; i < json_value_size(texts); ++i) {
        size_t length;
        const char *text = json_value_string(json_value_at(texts, i), &length);
        token_list_clear(&list);
        succeed(encoder_tokenizer_encode(tokenizer, text, length, c->prefix_space, c->max_length, &list));
        int64_t at = first_difference(&list, json_value_at(ids, i));
        if (at >= 0) fail_msg("%s, text %zu: id %lld differs: \"%.60s\"", c->name, i, (long long)at, text);
    }
    token_list_free(&list);
    encoder_tokenizer_free(tokenizer);
}

static void test_goldens(void **state) {
    (void)state;
    JsonValue *goldens;
    succeed(json_value_read_file(DATA "/goldens.json", &goldens));
    for (size_t i = 0; i < sizeof golden_cases / sizeof *golden_cases; ++i) check_case(goldens, &golden_cases[i]);
    json_value_free(goldens);
}

/* Negative control: what distinguishes the cases matters for these ids. */
static void test_prefix_space_and_case_matter(void **state) {
    (void)state;
    EncoderTokenizer *t = load(DATA "/roberta", ENCODER_TOKENIZER_BYTE_LEVEL);
    TokenList with = {0}, without = {0};
    succeed(encoder_tokenizer_encode(t, "they", 4, true, 64, &with));
    succeed(encoder_tokenizer_encode(t, "they", 4, false, 64, &without));
    assert_false(with.count == without.count && !memcmp(with.ids, without.ids, with.count * sizeof *with.ids));
    encoder_tokenizer_free(t);
    t = load(DATA "/bert", ENCODER_TOKENIZER_WORDPIECE);
    token_list_clear(&with);
    token_list_clear(&without);
    succeed(encoder_tokenizer_encode(t, "TH\xC3\x89Y", 5, false, 60, &with));
    succeed(encoder_tokenizer_encode(t, "they", 4, false, 60, &without));
    assert_int_equal(with.count, without.count);
    assert_memory_equal(with.ids, without.ids, with.count * sizeof *with.ids);
    token_list_free(&with);
    token_list_free(&without);
    encoder_tokenizer_free(t);
}

static void test_cut_keeps_both_ends(void **state) {
    (void)state;
    EncoderTokenizer *t = load(DATA "/bert", ENCODER_TOKENIZER_WORDPIECE);
    TokenList whole = {0}, cut = {0};
    const char text[] = "the chair said that the school would need more teachers";
    succeed(encoder_tokenizer_encode(t, text, sizeof text - 1, false, 1000, &whole));
    succeed(token_list_push(&cut, 7)); /* what is there already counts for nothing */
    succeed(encoder_tokenizer_encode(t, text, sizeof text - 1, false, 5, &cut));
    assert_int_equal(cut.count, 6);
    assert_int_equal(cut.ids[0], 7);
    assert_memory_equal(cut.ids + 1, whole.ids, 4 * sizeof *cut.ids);
    assert_int_equal(cut.ids[1], encoder_tokenizer_first_id(t));
    assert_int_equal(cut.ids[5], encoder_tokenizer_last_id(t));
    cut.count = 0;
    succeed(encoder_tokenizer_encode(t, text, sizeof text - 1, false, 2, &cut));
    assert_int_equal(cut.count, 2);
    token_list_free(&whole);
    token_list_free(&cut);
    encoder_tokenizer_free(t);
}

static void test_invalid_text(void **state) {
    (void)state;
    EncoderTokenizer *t = load(DATA "/bert", ENCODER_TOKENIZER_WORDPIECE);
    TokenList list = {0};
    expect_error(encoder_tokenizer_encode(t, "ab\xFF", 3, false, 60, &list), "invalid UTF-8 at byte 2");
    assert_int_equal(list.count, 0);
    token_list_free(&list);
    encoder_tokenizer_free(t);
}

typedef struct BadFile {
    const char *name, *content;
} BadFile;

static void expect_refused(const BadFile *files, EncoderTokenizerKind kind, const char *part) {
    char directory[] = "/tmp/encoder-tokenizer-XXXXXX", path[128];
    assert_non_null(mkdtemp(directory));
    for (const BadFile *f = files; f->name; ++f) {
        snprintf(path, sizeof path, "%s/%s", directory, f->name);
        succeed(file_write_atomic(path, f->content, strlen(f->content)));
    }
    EncoderTokenizer *t = NULL;
    expect_error(encoder_tokenizer_load(directory, kind, &t), part);
    assert_null(t);
    for (const BadFile *f = files; f->name; ++f) {
        snprintf(path, sizeof path, "%s/%s", directory, f->name);
        unlink(path);
    }
    assert_int_equal(rmdir(directory), 0);
}

#define VOCAB "[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n##b\n"
#define WORDPIECE_JSON(normalizer)                                                                                               \
    "{\"normalizer\":{\"type\":\"" normalizer "\"},\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},"                           \
    "\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"[UNK]\":0,\"[CLS]\":1}}}"

static void test_bad_directories(void **state) {
    (void)state;
    const EncoderTokenizerKind pieces = ENCODER_TOKENIZER_WORDPIECE, bytes = ENCODER_TOKENIZER_BYTE_LEVEL;
    expect_refused((BadFile[]){{0}}, pieces, "holds neither vocab.txt nor tokenizer.json");
    expect_refused((BadFile[]){{0}}, bytes, "holds neither vocab.json and merges.txt nor tokenizer.json");
    expect_refused((BadFile[]){{"vocab.json", "{}"}, {0}}, bytes, "holds neither");
    expect_refused((BadFile[]){{"vocab.txt", "[UNK]\n[CLS]\na\n"}, {0}}, pieces, "sep_token \"[SEP]\" is not in the vocabulary");
    expect_refused((BadFile[]){{"vocab.txt", "[UNK]\na\na\n"}, {0}}, pieces, "vocab.txt:3: token \"a\" has two ids");
    expect_refused(
        (BadFile[]){{"vocab.txt", VOCAB}, {"tokenizer_config.json", "{\"tokenizer_class\": \"BertJapaneseTokenizer\"}"}, {0}},
        pieces, "tokenizer_class BertJapaneseTokenizer");
    expect_refused((BadFile[]){{"vocab.txt", VOCAB}, {"tokenizer_config.json", "{\"do_basic_tokenize\": false}"}, {0}}, pieces,
                   "do_basic_tokenize");
    expect_refused((BadFile[]){{"vocab.txt", VOCAB}, {"tokenizer_config.json", "{"}, {0}}, pieces, "tokenizer_config.json");
    expect_refused((BadFile[]){{"vocab.txt", VOCAB},
                               {"tokenizer_config.json",
                                "{\"added_tokens_decoder\": {\"9\": {\"content\": \"<x>\", \"single_word\": true}}}"},
                               {0}},
                   pieces, "added token \"<x>\": single_word is not supported");
    expect_refused(
        (BadFile[]){{"vocab.txt", VOCAB},
                    {"tokenizer_config.json", "{\"added_tokens_decoder\": {\"9\": {\"content\": \"<x>\", \"special\": false}}}"},
                    {0}},
        pieces, "not special");
    expect_refused((BadFile[]){{"tokenizer.json", WORDPIECE_JSON("NFC")}, {0}}, pieces, "normalizer NFC");
    expect_refused((BadFile[]){{"tokenizer.json", WORDPIECE_JSON("BertNormalizer")}, {0}}, pieces, "sep_token");
    expect_refused((BadFile[]){{"tokenizer.json", "{\"model\":{\"type\":\"Unigram\"}}"}, {0}}, pieces, "model Unigram");
    expect_refused((BadFile[]){{"tokenizer.json", "{\"model\":{\"type\":\"BPE\"},\"normalizer\":{\"type\":\"NFC\"}}"}, {0}},
                   bytes, "normalizer NFC");
    expect_refused((BadFile[]){{"vocab.json", "{\"a\": 0}"}, {"merges.txt", ""}, {0}}, bytes,
                   "vocab.json: the vocabulary has no");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_goldens),
        cmocka_unit_test(test_prefix_space_and_case_matter),
        cmocka_unit_test(test_cut_keeps_both_ends),
        cmocka_unit_test(test_invalid_text),
        cmocka_unit_test(test_bad_directories),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
