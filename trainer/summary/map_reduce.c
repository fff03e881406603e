#include "trainer/summary/map_reduce.h"

#include "io/json_value.h"
#include "io/unicode.h"
#include "io/utf8.h"

#include <stdlib.h>
#include <string.h>

static bool is_blank_text(const char *text, size_t length) {
    for (size_t i = 0, size; i < length; i += size)
        if (!unicode_is_space(utf8_decode((const unsigned char *)text + i, &size))) return false;
    return true;
}

/* document->input is there: its chunks, and room for what will be replied. */
static Status begin_level(const MapReduceSettings *settings, MapReduce *document) {
    int64_t *ends;
    TRY(chunks_cut(&document->input, settings->chunk_tokens, settings->overlap_tokens, &document->chunks));
    TRY_ALLOC(ends = realloc(document->ends, (size_t)(document->chunks.count + 1) * sizeof *ends));
    document->ends = ends;
    document->answered = 0;
    text_clear(&document->replies);
    ++document->level;
    return STATUS_OK;
}

static Status start(const MapReduceSettings *settings, const char *id, const char *text, size_t length, MapReduce *out) {
    TRY(text_append_string(&out->id, id));
    TRY(text_append(&out->summary, "", 0));
    TRY(text_append(&out->replies, "", 0));
    TRY(token_text_make(settings->prompts->tokenizer, settings->prompts->scratch, settings->abbreviations, text, length,
                        &out->input));
    out->document_tokens = (int64_t)out->input.tokens.count;
    out->finish = "empty";
    out->done = is_blank_text(text, length);
    if (out->done) return STATUS_OK;
    TRY(begin_level(settings, out));
    out->document_chunks = out->chunks.count;
    return STATUS_OK;
}

Status map_reduce_start(const MapReduceSettings *settings, const char *id, const char *text, size_t length, MapReduce *out) {
    *out = (MapReduce){.level = 0};
    Status status = start(settings, id, text, length, out);
    if (status) map_reduce_free(out);
    return status;
}

void map_reduce_free(MapReduce *document) {
    text_free(&document->id);
    token_text_free(&document->input);
    chunk_list_free(&document->chunks);
    text_free(&document->replies);
    free(document->ends);
    text_free(&document->summary);
    text_free(&document->intermediate);
    *document = (MapReduce){.level = 0};
}

Status map_reduce_prompt(const MapReduceSettings *settings, const MapReduce *document, int64_t chunk, TokenList *ids) {
    SummaryStep step = document->level == 1 ? SUMMARY_MAP : SUMMARY_REDUCE;
    return summary_prompt_encode(settings->prompts, step, &document->input, document->chunks.chunks[chunk], ids);
}

/* ---- from one level to the next ---- */

static const char separator[] = "\n\n";

/* Where reply i ends when no more than `most` of its tokens are taken: behind a whole character. */
static int64_t cut_length(const TokenText *reply, int64_t most) {
    int64_t end = (int64_t)reply->tokens.count < most ? (int64_t)reply->tokens.count : most;
    while (end > 0 && reply->places[end] == CUT_CHARACTER_INSIDE) --end;
    return reply->starts[end];
}

/* The replies that are not empty, each cut to `most` tokens. */
static Status join(const TokenText *replies, int64_t count, int64_t most, Text *out) {
    text_clear(out);
    TRY(text_append(out, "", 0));
    for (int64_t i = 0; i < count; ++i) {
        int64_t length = cut_length(&replies[i], most);
        if (length == 0) continue;
        if (out->length > 0) TRY(text_append_string(out, separator));
        TRY(text_append(out, replies[i].bytes.data, (size_t)length));
    }
    return STATUS_OK;
}

static Status join_and_count(const MapReduceSettings *settings, const TokenText *replies, int64_t count, int64_t most,
                             Text *joined, TokenText *out) {
    const SummaryPrompts *prompts = settings->prompts;
    token_text_free(out);
    TRY(join(replies, count, most, joined));
    return token_text_make(prompts->tokenizer, prompts->scratch, settings->abbreviations, joined->data, joined->length, out);
}

/* *out: the joined replies, of at most `limit` tokens. *most: how many of a reply are in it. */
static Status join_within(const MapReduceSettings *settings, const TokenText *replies, int64_t count, int64_t limit,
                          TokenText *out, int64_t *most) {
    Text joined = {0};
    int64_t low = 0, high = limit + 1; /* nothing at all fits, a reply longer than the limit does not */
    Status status = join_and_count(settings, replies, count, INT64_MAX, &joined, out);
    bool fits = !status && (int64_t)out->tokens.count <= limit;
    while (!status && !fits && high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        status = join_and_count(settings, replies, count, middle, &joined, out);
        if ((int64_t)out->tokens.count <= limit)
            low = middle;
        else
            high = middle;
    }
    if (!status && !fits) status = join_and_count(settings, replies, count, low, &joined, out);
    *most = fits ? INT64_MAX : low;
    text_free(&joined);
    return status;
}

/* The replies of this level become the input of the next. */
static Status reduce(const MapReduceSettings *settings, MapReduce *document) {
    const SummaryPrompts *prompts = settings->prompts;
    int64_t count = document->chunks.count, limit = (int64_t)document->input.tokens.count / 4 * 3, most = 0;
    TokenText *replies = calloc((size_t)count, sizeof *replies), next = {.starts = NULL};
    TRY_ALLOC(replies);
    Status status = STATUS_OK;
    for (int64_t i = 0; i < count && !status; ++i) {
        int64_t begin = i ? document->ends[i - 1] : 0;
        status = token_text_make(prompts->tokenizer, prompts->scratch, settings->abbreviations, document->replies.data + begin,
                                 (size_t)(document->ends[i] - begin), &replies[i]);
    }
    if (!status) status = join_within(settings, replies, count, limit, &next, &most);
    for (int64_t i = 0; i < count; ++i) {
        document->cut += !status && (int64_t)replies[i].tokens.count > most;
        token_text_free(&replies[i]);
    }
    free(replies);
    token_text_free(&document->input);
    document->input = next;
    return status;
}

static Status fill_intermediate(const MapReduce *document, const SummaryReply *reply, JsonValue *line) {
    Chunk chunk = document->chunks.chunks[document->answered];
    JsonValue *id, *range;
    TRY(json_value_parse(document->id.data, document->id.length, &id));
    TRY(json_value_set(line, "id", id));
    TRY(json_value_set_integer(line, "level", document->level));
    TRY(json_value_set_integer(line, "chunk", document->answered));
    TRY_ALLOC(range = json_value_new_array());
    TRY(json_value_set(line, "tokens", range));
    TRY(json_value_append(range, json_value_new_integer(chunk.begin)));
    TRY(json_value_append(range, json_value_new_integer(chunk.end)));
    TRY(json_value_set(line, "summary", json_value_new_string(reply->text, reply->length)));
    TRY(json_value_set_integer(line, "summary_tokens", reply->new_tokens));
    return json_value_set_string(line, "finish_reason", reply->finish);
}

static Status keep_intermediate(MapReduce *document, const SummaryReply *reply) {
    JsonValue *line = json_value_new_object();
    TRY_ALLOC(line);
    Status status = fill_intermediate(document, reply, line);
    if (!status) status = json_value_write(line, 0, &document->intermediate);
    if (!status) status = text_append(&document->intermediate, "\n", 1);
    json_value_free(line);
    return status;
}

static Status finish(MapReduce *document, const SummaryReply *reply) {
    document->done = true;
    document->finish = reply->finish;
    document->summary_tokens = reply->new_tokens;
    return text_append(&document->summary, reply->text, reply->length);
}

Status map_reduce_reply(const MapReduceSettings *settings, MapReduce *document, const SummaryReply *reply) {
    if (settings->keep_intermediate) TRY(keep_intermediate(document, reply));
    TRY(text_append(&document->replies, reply->text, reply->length));
    document->ends[document->answered++] = (int64_t)document->replies.length;
    if (document->answered < document->chunks.count) return STATUS_OK;
    if (document->chunks.count == 1) return finish(document, reply);
    TRY(reduce(settings, document));
    if (document->input.tokens.count == 0) return finish(document, reply); /* every summary was empty */
    return begin_level(settings, document);
}
