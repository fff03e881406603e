/* Seconds to tokenize a JSON lines file on one thread, with the texts in memory; the C half of run.sh. Prints
 * {"seconds", "bytes", "tokens", "checksum"}: the checksum tells whether the other half made the same ids. */
#include "io/json_lines.h"
#include "io/log.h"
#include "io/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

typedef struct Texts {
    Text bytes;
    size_t *ends;
    size_t count, capacity;
} Texts;

static Status append_text(Texts *texts, const JsonValue *object) {
    const char *text;
    size_t length;
    TRY(json_value_get_string(object, "text", &text, &length));
    TRY(text_append(&texts->bytes, text, length));
    if (texts->count == texts->capacity) {
        size_t *ends;
        texts->capacity = texts->capacity * 2 + 64;
        TRY_ALLOC(ends = realloc(texts->ends, texts->capacity * sizeof *ends));
        texts->ends = ends;
    }
    texts->ends[texts->count++] = texts->bytes.length;
    return STATUS_OK;
}

static Status read_texts(const char *path, Texts *texts) {
    JsonLines *reader;
    TRY(json_lines_open(path, &reader));
    Status status;
    for (;;) {
        JsonValue *object;
        TRY_GOTO(json_lines_next_object(reader, &object), done);
        if (!object) break;
        status = append_text(texts, object);
        json_value_free(object);
        if (status) break;
    }
done:
    json_lines_close(reader);
    return status;
}

static double seconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static Status measure(const Tokenizer *tokenizer, const Texts *texts, TokenizerScratch *scratch, TokenList *ids) {
    double start = seconds_now();
    for (size_t i = 0; i < texts->count; ++i) {
        size_t begin = i ? texts->ends[i - 1] : 0;
        TRY(tokenizer_encode(tokenizer, scratch, texts->bytes.data + begin, texts->ends[i] - begin, ids));
    }
    double seconds = seconds_now() - start;
    uint64_t checksum = 0;
    for (size_t i = 0; i < ids->count; ++i) checksum = (checksum * 31 + (uint64_t)ids->ids[i]) % 1000000007u;
    printf("{\"seconds\": %.6f, \"bytes\": %zu, \"tokens\": %zu, \"checksum\": %llu}\n", seconds, texts->bytes.length, ids->count,
           (unsigned long long)checksum);
    return STATUS_OK;
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: bench_tokenizer TOKENIZER_DIR FILE.jsonl\n");
        return STATUS_INVALID;
    }
    Tokenizer *tokenizer = NULL;
    TokenizerScratch *scratch = NULL;
    TokenList ids = {0};
    Texts texts = {0};
    Status status = tokenizer_load(argv[1], &tokenizer);
    if (!status) status = tokenizer_scratch_new(tokenizer, &scratch);
    if (!status) status = read_texts(argv[2], &texts);
    if (!status) status = measure(tokenizer, &texts, scratch, &ids);
    tokenizer_scratch_free(scratch);
    tokenizer_free(tokenizer);
    token_list_free(&ids);
    text_free(&texts.bytes);
    free(texts.ends);
    if (status) log_status(status);
    int code = status_exit_code(status);
    status_free(status);
    return code;
}
