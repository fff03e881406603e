/* Summarizing without a model: every token of a text is in a chunk, chunks are cut where sentences end, prompts are those of
 * training, and map-reduce ends whatever is replied. */
#include "io/prompt_files.h"
#include "io/random.h"
#include "io/utf8.h"
#include "trainer/summary/map_reduce.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

static Tokenizer *tokenizer;
static TokenizerScratch *scratch;
static const StringList no_abbreviations;

static int load(void **state) {
    (void)state;
    Status status = tokenizer_load(TEST_DATA "/tokenizer-small", &tokenizer);
    if (status) fail_msg("%s", status_message(status));
    assert_null(tokenizer_scratch_new(tokenizer, &scratch));
    return 0;
}

static int unload(void **state) {
    (void)state;
    tokenizer_scratch_free(scratch);
    tokenizer_free(tokenizer);
    return 0;
}

static TokenText make(const char *text) {
    TokenText out;
    Status status = token_text_make(tokenizer, scratch, &no_abbreviations, text, strlen(text), &out);
    if (status) fail_msg("%s", status_message(status));
    return out;
}

static Text repeated(const char *piece, int times) {
    Text text = {0};
    assert_null(text_append(&text, "", 0));
    for (int i = 0; i < times; ++i) assert_null(text_append_string(&text, piece));
    return text;
}

/* Sentences of lower-case words, numbers, Chinese, emoji, blank runs, combining marks and marks without sense. */
static Text random_text(uint64_t seed, int pieces) {
    static const char *const parts[] = {"word", " and",     " 1,234.5", ". ",        "! ",
                                        "?\n",  "\n\n",     "   ",      "\t",        "東京",
                                        "。",   "😀",        "🇯🇵",       "e\xCC\x81", "supercalifragilistic",
                                        "...",  "\xC2\xA0", "\"",       " Mr. ",     "<|im_end|>"};
    RandomStream random = random_stream(seed, 0);
    Text text = repeated("", 0);
    for (int i = 0; i < pieces; ++i)
        assert_null(text_append_string(&text, parts[random_below(&random, sizeof parts / sizeof *parts)]));
    return text;
}

/* The properties that chunks.h promises; returns the number of chunks. */
static int64_t check_chunks(const char *text, int64_t chunk_tokens, int64_t overlap) {
    TokenText tokens = make(text);
    ChunkList list = {0};
    int64_t count = (int64_t)tokens.tokens.count, covered = 0;
    assert_null(chunks_cut(&tokens, chunk_tokens, overlap, &list));
    assert_int_equal(tokens.starts[count], tokens.bytes.length);
    for (int64_t i = 0; i < list.count; ++i) {
        Chunk chunk = list.chunks[i];
        if (chunk.begin > covered) fail_msg("tokens %ld to %ld are in no chunk", (long)covered, (long)chunk.begin);
        assert_true(covered - chunk.begin <= overlap);
        assert_true(chunk.end > covered);
        assert_true(chunk.end - chunk.begin <= chunk_tokens);
        if (i + 1 < list.count) assert_true(chunk.end - chunk.begin >= chunk_tokens - chunk_tokens / 4);
        size_t start = (size_t)tokens.starts[chunk.begin], bytes = (size_t)tokens.starts[chunk.end] - start;
        assert_int_equal(utf8_valid_prefix(tokens.bytes.data + start, bytes), bytes);
        covered = chunk.end;
    }
    assert_int_equal(covered, count);
    int64_t chunks = list.count;
    chunk_list_free(&list);
    token_text_free(&tokens);
    return chunks;
}

static void every_token_is_in_a_chunk(void **state) {
    (void)state;
    static const char *const pieces[] = {"A sentence of some words. ",
                                         "x",
                                         "日本語",
                                         "文。",
                                         "😀",
                                         "👨‍👩‍👧",
                                         " \n ",
                                         "word ",
                                         "a\n",
                                         "e\xCC\x81",
                                         ". "};
    static const int64_t sizes[][2] = {{64, 0}, {64, 32}, {64, 1}, {65, 3}, {100, 50}, {333, 20}, {2048, 128}};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; ++s) {
        assert_int_equal(check_chunks("", sizes[s][0], sizes[s][1]), 0);
        assert_int_equal(check_chunks(" ", sizes[s][0], sizes[s][1]), 1);
        for (size_t p = 0; p < sizeof pieces / sizeof *pieces; ++p) {
            Text text = repeated(pieces[p], 700);
            int64_t chunks = check_chunks(text.data, sizes[s][0], sizes[s][1]);
            if (sizes[s][0] == 64 && chunks < 3) fail_msg("%s: %ld chunks", pieces[p], (long)chunks);
            text_free(&text);
        }
        for (uint64_t seed = 0; seed < 20; ++seed) {
            Text text = random_text(seed, 600);
            check_chunks(text.data, sizes[s][0], sizes[s][1]);
            text_free(&text);
        }
    }
}

static void chunks_end_with_sentences(void **state) {
    (void)state;
    const char *const sentence = "The committee met again on Tuesday (see 1.5). ";
    Text text = repeated(sentence, 100);
    TokenText tokens = make(text.data);
    ChunkList list = {0};
    assert_null(chunks_cut(&tokens, 200, 60, &list));
    assert_true(list.count > 5);
    for (int64_t i = 0; i < list.count; ++i) {
        const char *begin = tokens.bytes.data + tokens.starts[list.chunks[i].begin];
        const char *end = tokens.bytes.data + tokens.starts[list.chunks[i].end];
        assert_memory_equal(begin + (*begin == ' '), sentence, 10);
        while (end[-1] == ' ') --end;
        assert_int_equal(end[-1], '.');
        assert_int_equal(end[-2], ')');
        if (i) assert_true(list.chunks[i].begin < list.chunks[i - 1].end); /* they overlap */
    }
    chunk_list_free(&list);
    token_text_free(&tokens);
    text_free(&text);
    /* Without sentences lines, without lines words. */
    for (int lines = 0; lines < 2; ++lines) {
        text = repeated(lines ? "no end here\n" : "no end here ", 200);
        tokens = make(text.data);
        assert_null(chunks_cut(&tokens, 64, 0, &list));
        for (int64_t i = 0; i + 1 < list.count; ++i) {
            const char *end = tokens.bytes.data + tokens.starts[list.chunks[i].end];
            char mark = lines ? '\n' : ' ';
            assert_true(*end == mark || end[-1] == mark);
        }
        chunk_list_free(&list);
        token_text_free(&tokens);
        text_free(&text);
    }
}

/* ---- prompts ---- */

static SummaryPrompts load_prompts(SummaryStyle style) {
    SummaryPrompts prompts;
    const char *const files[SUMMARY_STEPS] = {NULL, NULL};
    Status status = summary_prompts_load(style, files, tokenizer, scratch, "model", &prompts);
    if (status) fail_msg("%s", status_message(status));
    return prompts;
}

static void check_prompt(SummaryStyle style, SummaryStep step, const char *document, const char *expected) {
    SummaryPrompts prompts = load_prompts(style);
    TokenText text = make(document);
    TokenList ids = {0}, wanted = {0};
    assert_null(summary_prompt_encode(&prompts, step, &text, (Chunk){0, (int64_t)text.tokens.count}, &ids));
    assert_null(tokenizer_encode(tokenizer, scratch, expected, strlen(expected), &wanted));
    assert_int_equal(ids.count, wanted.count);
    assert_memory_equal(ids.ids, wanted.ids, ids.count * sizeof *ids.ids);
    assert_true((int64_t)ids.count <= prompts.tokens + (int64_t)text.tokens.count);
    token_list_free(&ids);
    token_list_free(&wanted);
    token_text_free(&text);
    summary_prompts_free(&prompts);
}

static void prompts_are_one_text(void **state) {
    (void)state;
    const char *const document = "It rained. Then\nit stopped.";
    Text wanted = repeated("[INST] Summarize the following news article:\n\nIt rained. Then\nit stopped.\n\nSummary: [/INST]", 1);
    check_prompt(SUMMARY_QWEN_SUM, SUMMARY_MAP, document, wanted.data);
    check_prompt(SUMMARY_QWEN_SUM, SUMMARY_REDUCE, document, wanted.data);
    const char *const built_in[] = {prompt_summarize_map, prompt_summarize_reduce};
    assert_string_not_equal(built_in[0], built_in[1]);
    for (int step = 0; step < SUMMARY_STEPS; ++step) {
        const char *field = strstr(built_in[step], "{document}");
        assert_non_null(field);
        text_clear(&wanted);
        assert_null(text_append_format(&wanted, "%.*s%s%s", (int)(field - built_in[step]), built_in[step], document, field + 10));
        check_prompt(SUMMARY_PLAIN, (SummaryStep)step, document, wanted.data);
        Text chat = {0};
        assert_null(text_append_format(&chat,
                                       "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant."
                                       "<|im_end|>\n<|im_start|>user\n%s<|im_end|>\n<|im_start|>assistant\n",
                                       wanted.data));
        check_prompt(SUMMARY_CHAT, (SummaryStep)step, document, chat.data);
        text_free(&chat);
    }
    text_free(&wanted);
}

/* ---- levels ---- */

typedef enum Author { COPIES, SHORT, SILENT, GROWS, BROKEN } Author; /* what a "model" replies */

/* Runs a document to its end; returns the levels. */
static int64_t run_levels(const char *text, Author author, int64_t chunk_tokens, MapReduce *document) {
    SummaryPrompts prompts = load_prompts(SUMMARY_PLAIN);
    MapReduceSettings settings = {.prompts = &prompts,
                                  .abbreviations = &no_abbreviations,
                                  .chunk_tokens = chunk_tokens,
                                  .overlap_tokens = chunk_tokens / 2,
                                  .keep_intermediate = true};
    Text grown = repeated("growing text 東。", 80), broken = repeated("\xEF\xBF\xBD", 200);
    int64_t replies = 0, before = INT64_MAX, level = 0;
    assert_null(map_reduce_start(&settings, "\"a\\\"b\"", text, strlen(text), document));
    while (!document->done) {
        const TokenText *input = &document->input;
        if (document->level != level) { /* a new level is shorter */
            if (level) assert_true((int64_t)input->tokens.count <= before / 4 * 3);
            before = (int64_t)input->tokens.count;
            level = document->level;
        }
        Chunk chunk = document->chunks.chunks[document->answered];
        const char *start = input->bytes.data + input->starts[chunk.begin];
        size_t length = (size_t)(input->starts[chunk.end] - input->starts[chunk.begin]);
        TokenList ids = {0};
        assert_null(map_reduce_prompt(&settings, document, document->answered, &ids));
        assert_true((int64_t)ids.count <= prompts.tokens + chunk_tokens);
        token_list_free(&ids);
        SummaryReply reply = {.text = start, .length = length, .new_tokens = chunk.end - chunk.begin, .finish = "eos"};
        if (author == SHORT) reply.text = "short.", reply.length = 6;
        if (author == SILENT) reply.length = 0;
        if (author == GROWS) reply.text = grown.data, reply.length = grown.length;
        if (author == BROKEN) reply.text = broken.data, reply.length = broken.length;
        Status status = map_reduce_reply(&settings, document, &reply);
        if (status) fail_msg("%s", status_message(status));
        if (++replies > 10000) fail_msg("it does not end");
    }
    int64_t lines = 0;
    for (const char *p = document->intermediate.data; p && (p = strchr(p, '\n')); ++p) ++lines;
    assert_int_equal(lines, replies);
    summary_prompts_free(&prompts);
    text_free(&grown);
    text_free(&broken);
    return document->level;
}

static void map_reduce_ends(void **state) {
    (void)state;
    MapReduce document;
    Text long_text = repeated("The committee met again on Tuesday. ", 400);
    for (int author = COPIES; author <= BROKEN; ++author) {
        int64_t levels = run_levels(long_text.data, (Author)author, 64, &document);
        if (author == SILENT) {
            assert_int_equal(levels, 1);
            assert_int_equal(document.summary.length, 0);
        } else {
            assert_true(levels > 1);
            assert_true(document.summary.length > 0);
            assert_true((author == SHORT) == (document.cut == 0));
        }
        assert_true(document.document_chunks > 50);
        map_reduce_free(&document);
    }
    text_free(&long_text);
    for (uint64_t seed = 0; seed < 10; ++seed) {
        Text text = random_text(seed, 500);
        run_levels(text.data, (Author)(seed % 5), 64 + (int64_t)seed, &document);
        map_reduce_free(&document);
        text_free(&text);
    }
}

static void small_documents(void **state) {
    (void)state;
    MapReduce document;
    static const char *const blanks[] = {"", " ", " \n\t\xC2\xA0\xE3\x80\x80"};
    for (size_t i = 0; i < sizeof blanks / sizeof *blanks; ++i) {
        assert_int_equal(run_levels(blanks[i], COPIES, 64, &document), 0);
        assert_int_equal(document.summary.length, 0);
        assert_string_equal(document.finish, "empty");
        map_reduce_free(&document);
    }
    assert_int_equal(run_levels("It rained.", COPIES, 64, &document), 1);
    assert_string_equal(document.summary.data, "It rained.");
    assert_string_equal(document.intermediate.data,
                        "{\"id\": \"a\\\"b\", \"level\": 1, \"chunk\": 0, \"tokens\": [0, 4], \"summary\": \"It rained.\", "
                        "\"summary_tokens\": 4, \"finish_reason\": \"eos\"}\n");
    map_reduce_free(&document);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_token_is_in_a_chunk), cmocka_unit_test(chunks_end_with_sentences),
        cmocka_unit_test(prompts_are_one_text),      cmocka_unit_test(map_reduce_ends),
        cmocka_unit_test(small_documents),
    };
    return cmocka_run_group_tests(tests, load, unload);
}
