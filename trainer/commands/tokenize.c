/* adamem tokenize: lines are read in batches, worked on by all threads, and written in the order they came. */
#include "trainer/commands/commands.h"

#include "io/chat_template.h"
#include "io/json_lines.h"
#include "io/tokenizer.h"
#include "trainer/commands/command_line.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCH_LINES 4096
#define BATCH_BYTES (16 << 20)

static const char usage[] =
    "Usage: adamem tokenize --tokenizer DIR [--input FILE] [--decode | --chat]\n"
    "\n"
    "Reads JSON lines and writes one JSON line for each, in the same order.\n"
    "\n"
    "  --tokenizer DIR  directory with tokenizer.json, or vocab.json and merges.txt\n"
    "  --input FILE     JSON lines, plain, .gz or .zst; - is standard input (default -)\n"
    "  --decode         {\"ids\": [...]} -> {\"text\": \"...\"}; special tokens are kept\n"
    "  --chat           {\"messages\": [{\"role\", \"content\"}], \"add_generation_prompt\": false}\n"
    "                   -> {\"text\": \"...\", \"ids\": [...]}\n"
    "  --help           this text\n"
    "\n"
    "Without --decode or --chat: {\"text\": \"...\"} -> {\"ids\": [...]}. Added tokens inside the text are recognised.\n"
    "OMP_NUM_THREADS sets the number of threads.\n";

typedef enum Mode { MODE_ENCODE, MODE_DECODE, MODE_CHAT } Mode;

typedef struct Options {
    const char *tokenizer, *input;
    Mode mode;
    bool help;
} Options;

/* What one thread keeps from line to line. */
typedef struct Worker {
    TokenizerScratch *scratch;
    TokenList ids;
    Text text;
} Worker;

typedef struct Line {
    size_t start, length; /* in Batch.bytes */
    int64_t number;       /* in the file */
    Text result;
    Status status;
} Line;

typedef struct Batch {
    Text bytes;
    Line *lines;
    int count;
} Batch;

typedef struct Run {
    Options options;
    Tokenizer *tokenizer;
    JsonLines *reader;
    Worker *workers;
    int worker_count;
    Batch batch;
} Run;

static Status parse_options(int argc, char **argv, Options *out) {
    static const struct option options[] = {{"tokenizer", required_argument, NULL, 't'},
                                            {"input", required_argument, NULL, 'i'},
                                            {"decode", no_argument, NULL, 'd'},
                                            {"chat", no_argument, NULL, 'c'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    *out = (Options){.input = "-"};
    bool decode = false, chat = false;
    optind = 0;
    for (int character = 0;;) {
        TRY(command_line_next(argc, argv, options, &character));
        if (character == -1) break;
        switch (character) {
        case 't': out->tokenizer = optarg; break;
        case 'i': out->input = optarg; break;
        case 'd': decode = true; break;
        case 'c': chat = true; break;
        default: out->help = true; return STATUS_OK;
        }
    }
    if (decode && chat) INVALID("tokenize: --decode and --chat exclude each other");
    if (!out->tokenizer) INVALID("tokenize: --tokenizer DIR is missing");
    out->mode = decode ? MODE_DECODE : chat ? MODE_CHAT : MODE_ENCODE;
    return STATUS_OK;
}

static Status append_ids(const TokenList *ids, Text *out) {
    TRY(text_reserve(out, out->length + 12 * ids->count + 2));
    TRY(text_append(out, "[", 1));
    for (size_t i = 0; i < ids->count; ++i) {
        char digits[12], *p = digits + sizeof digits;
        uint32_t value = (uint32_t)ids->ids[i];
        do *--p = (char)('0' + value % 10);
        while (value /= 10);
        if (i) TRY(text_append(out, ", ", 2));
        TRY(text_append(out, p, (size_t)(digits + sizeof digits - p)));
    }
    return text_append(out, "]", 1);
}

static Status append_string(const Text *text, Text *out) {
    JsonValue *string;
    TRY_ALLOC(string = json_value_new_string(text->data ? text->data : "", text->length));
    Status status = json_value_write(string, 0, out);
    json_value_free(string);
    return status;
}

static Status read_ids(const JsonValue *object, TokenList *out) {
    JsonValue *ids;
    TRY(json_value_get_array(object, "ids", &ids));
    for (size_t i = 0; i < json_value_size(ids); ++i) {
        const JsonValue *item = json_value_at(ids, i);
        int64_t id = json_value_integer(item);
        if (!json_value_is_integer(item) || id < 0 || id > INT32_MAX) INVALID("ids[%zu] is not a token id", i);
        TRY(token_list_push(out, (int32_t)id));
    }
    return STATUS_OK;
}

static Status encode_line(const Run *run, Worker *worker, const JsonValue *object, Text *out) {
    const char *text;
    size_t length;
    TRY(json_value_get_string(object, "text", &text, &length));
    TRY(tokenizer_encode(run->tokenizer, worker->scratch, text, length, &worker->ids));
    TRY(text_append_string(out, "{\"ids\": "));
    TRY(append_ids(&worker->ids, out));
    return text_append_string(out, "}\n");
}

static Status decode_line(const Run *run, Worker *worker, const JsonValue *object, Text *out) {
    TRY(read_ids(object, &worker->ids));
    TRY(tokenizer_decode(run->tokenizer, worker->ids.ids, worker->ids.count, false, &worker->text));
    TRY(text_append_string(out, "{\"text\": "));
    TRY(append_string(&worker->text, out));
    return text_append_string(out, "}\n");
}

static Status chat_line(const Run *run, Worker *worker, const JsonValue *object, Text *out) {
    JsonValue *messages, *prompt = json_value_get(object, "add_generation_prompt"), *tools = json_value_get(object, "tools");
    TRY(json_value_get_array(object, "messages", &messages));
    if (prompt && !json_value_is_boolean(prompt)) INVALID("\"add_generation_prompt\" must be true or false");
    if (json_value_size(tools)) INVALID("\"tools\" is not supported");
    TRY(chat_template_render(messages, json_value_boolean(prompt), &worker->text, NULL, NULL));
    TRY(tokenizer_encode(run->tokenizer, worker->scratch, worker->text.data, worker->text.length, &worker->ids));
    TRY(text_append_string(out, "{\"text\": "));
    TRY(append_string(&worker->text, out));
    TRY(text_append_string(out, ", \"ids\": "));
    TRY(append_ids(&worker->ids, out));
    return text_append_string(out, "}\n");
}

static Status process_line(const Run *run, Worker *worker, const Line *line, Text *out) {
    static Status (*const process[])(const Run *, Worker *, const JsonValue *, Text *) = {encode_line, decode_line, chat_line};
    JsonValue *object;
    token_list_clear(&worker->ids);
    text_clear(&worker->text);
    text_clear(out);
    TRY(json_value_parse(run->batch.bytes.data + line->start, line->length, &object));
    Status status = process[run->options.mode](run, worker, object, out);
    json_value_free(object);
    return status;
}

static Status read_batch(Run *run) {
    Batch *batch = &run->batch;
    text_clear(&batch->bytes);
    batch->count = 0;
    while (batch->count < BATCH_LINES && batch->bytes.length < BATCH_BYTES) {
        const char *bytes;
        size_t length;
        TRY(json_lines_next(run->reader, &bytes, &length));
        if (!bytes) break;
        Line *line = &batch->lines[batch->count++];
        line->start = batch->bytes.length;
        line->length = length;
        line->number = json_lines_number(run->reader);
        TRY(text_append(&batch->bytes, bytes, length));
    }
    return STATUS_OK;
}

/* The lines before the first bad one are written: they are right, and the message says where it stopped. */
static Status write_batch(Run *run) {
    Status first = STATUS_OK;
    for (int i = 0; i < run->batch.count; ++i) {
        Line *line = &run->batch.lines[i];
        if (first)
            status_free(line->status);
        else if (line->status)
            first = status_prefix(line->status, "%s:%lld", json_lines_path(run->reader), (long long)line->number);
        else if (fwrite(line->result.data, 1, line->result.length, stdout) != line->result.length)
            first = FAILURE("cannot write to standard output");
        line->status = STATUS_OK;
    }
    return first;
}

static Status process_batch(Run *run) {
    Batch *batch = &run->batch;
#pragma omp parallel for schedule(dynamic, 8) num_threads(run->worker_count)
    for (int i = 0; i < batch->count; ++i)
        batch->lines[i].status =
            process_line(run, &run->workers[omp_get_thread_num()], &batch->lines[i], &batch->lines[i].result);
    return write_batch(run);
}

static Status process_all(Run *run) {
    do {
        /* Lines before a broken one are done first, as when reading line by line. */
        Status broken = read_batch(run), status = process_batch(run);
        if (status) {
            status_free(broken);
            return status;
        }
        TRY(broken);
    } while (run->batch.count);
    if (fflush(stdout)) FAIL("cannot write to standard output");
    return STATUS_OK;
}

static Status start(Run *run) {
    TRY(tokenizer_load(run->options.tokenizer, &run->tokenizer));
    if (run->options.mode == MODE_CHAT) TRY(chat_template_check(tokenizer_chat_template(run->tokenizer), run->options.tokenizer));
    TRY_ALLOC(run->batch.lines = calloc(BATCH_LINES, sizeof *run->batch.lines));
    int threads = omp_get_max_threads();
    TRY_ALLOC(run->workers = calloc((size_t)threads, sizeof *run->workers));
    for (; run->worker_count < threads; ++run->worker_count)
        TRY(tokenizer_scratch_new(run->tokenizer, &run->workers[run->worker_count].scratch));
    return json_lines_open(run->options.input, &run->reader);
}

static void finish(Run *run) {
    for (int i = 0; i < run->worker_count; ++i) {
        tokenizer_scratch_free(run->workers[i].scratch);
        token_list_free(&run->workers[i].ids);
        text_free(&run->workers[i].text);
    }
    free(run->workers);
    for (int i = 0; i < BATCH_LINES && run->batch.lines; ++i) text_free(&run->batch.lines[i].result);
    free(run->batch.lines);
    text_free(&run->batch.bytes);
    json_lines_close(run->reader);
    tokenizer_free(run->tokenizer);
}

Status command_tokenize(int argc, char **argv) {
    Run run = {0};
    TRY(parse_options(argc, argv, &run.options));
    if (run.options.help) return fputs(usage, stdout) < 0 ? FAILURE("cannot write to standard output") : STATUS_OK;
    Status status = start(&run);
    if (!status) status = process_all(&run);
    finish(&run);
    return status;
}
