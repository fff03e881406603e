#include "io/sample_text.h"

#include "io/dataset.h"
#include "io/truncate.h"

#include <stdlib.h>

void sample_text_clear(SampleText *sample) {
    text_clear(&sample->text);
    sample->count = 0;
    sample->append_eos = false;
}

void sample_text_free(SampleText *sample) {
    text_free(&sample->text);
    free(sample->pieces);
    *sample = (SampleText){0};
}

Status sample_text_mark(SampleText *sample, SamplePiece piece) {
    if (sample->count == sample->capacity) {
        size_t grown = sample->capacity ? sample->capacity * 2 : 16;
        SamplePiece *pieces;
        TRY_ALLOC(pieces = realloc(sample->pieces, grown * sizeof *pieces));
        sample->pieces = pieces;
        sample->capacity = grown;
    }
    sample->pieces[sample->count++] = piece;
    return STATUS_OK;
}

Status sample_text_append(SampleText *sample, const char *bytes, size_t length, SamplePiece piece) {
    piece.start = sample->text.length;
    piece.end = piece.start + length;
    TRY(text_append(&sample->text, bytes, length));
    return sample_text_mark(sample, piece);
}

typedef struct Encoder {
    const SampleText *sample;
    const Tokenizer *tokenizer;
    TokenizerScratch *scratch;
    TruncatePiece *kept; /* [pieces] tokens to keep; NULL = all */
    int64_t *measured;   /* [pieces] tokens of each piece by itself */
    bool apart;          /* tokenize every piece by itself */
    Text run;            /* text that is tokenized at once */
    size_t run_header;   /* bytes of the run before its first labelled byte */
    bool run_labelled, run_open;
    TokenList ids, header;
    TokenList input_ids, labels; /* the result */
} Encoder;

static void encoder_free(Encoder *e) {
    free(e->kept);
    free(e->measured);
    text_free(&e->run);
    token_list_free(&e->ids);
    token_list_free(&e->header);
    token_list_free(&e->input_ids);
    token_list_free(&e->labels);
}

static Status emit(Encoder *e, const int32_t *ids, size_t count, size_t first_label) {
    TRY(token_list_append(&e->input_ids, ids, count));
    TRY(token_list_reserve(&e->labels, e->labels.count + count));
    for (size_t i = 0; i < count; ++i) e->labels.ids[e->labels.count++] = i < first_label ? LABEL_IGNORED : ids[i];
    return STATUS_OK;
}

/* Where the header tokenizes alone as it does in the run, its tokens are exactly its bytes; the first that differs reaches
 * beyond it. */
static Status first_label_of_run(Encoder *e, size_t *first_label) {
    *first_label = e->ids.count;
    if (!e->run_labelled) return STATUS_OK;
    token_list_clear(&e->header);
    TRY(tokenizer_encode(e->tokenizer, e->scratch, e->run.data ? e->run.data : "", e->run_header, &e->header));
    size_t same = 0;
    while (same < e->header.count && same < e->ids.count && e->header.ids[same] == e->ids.ids[same]) ++same;
    *first_label = same;
    return STATUS_OK;
}

static Status close_run(Encoder *e) {
    if (!e->run_open) return STATUS_OK;
    e->run_open = false;
    token_list_clear(&e->ids);
    TRY(tokenizer_encode(e->tokenizer, e->scratch, e->run.data ? e->run.data : "", e->run.length, &e->ids));
    size_t first_label = 0;
    TRY(first_label_of_run(e, &first_label));
    return emit(e, e->ids.ids, e->ids.count, first_label);
}

static Status add_to_run(Encoder *e, const SamplePiece *piece) {
    if (piece->new_unit || e->apart || (e->run_labelled && !piece->label)) TRY(close_run(e));
    if (!e->run_open) {
        text_clear(&e->run);
        e->run_labelled = false;
        e->run_open = true;
    }
    if (piece->label && !e->run_labelled) {
        e->run_labelled = true;
        e->run_header = e->run.length;
    }
    return text_append(&e->run, e->sample->text.data + piece->start, piece->end - piece->start);
}

/* A cut piece keeps the first of its own ids, so its neighbours are tokenized apart from it. */
static Status emit_cut(Encoder *e, const SamplePiece *piece, int64_t tokens) {
    TRY(close_run(e));
    token_list_clear(&e->ids);
    TRY(tokenizer_encode(e->tokenizer, e->scratch, e->sample->text.data + piece->start, piece->end - piece->start, &e->ids));
    return emit(e, e->ids.ids, (size_t)tokens, piece->label ? 0 : (size_t)tokens);
}

static Status encode_pieces(Encoder *e) {
    token_list_clear(&e->input_ids);
    token_list_clear(&e->labels);
    e->run_open = e->run_labelled = false;
    for (size_t i = 0; i < e->sample->count; ++i) {
        const SamplePiece *piece = &e->sample->pieces[i];
        if (!e->kept || e->kept[i].tokens == e->measured[i])
            TRY(add_to_run(e, piece));
        else if (!piece->whole)
            TRY(emit_cut(e, piece, e->kept[i].tokens));
    }
    TRY(close_run(e));
    if (!e->sample->append_eos) return STATUS_OK;
    int32_t eos = tokenizer_eos_id(e->tokenizer);
    return emit(e, &eos, 1, 0);
}

static Status measure(Encoder *e) {
    size_t count = e->sample->count;
    TRY_ALLOC(e->kept = calloc(count + 1, sizeof *e->kept));
    TRY_ALLOC(e->measured = calloc(count + 1, sizeof *e->measured));
    for (size_t i = 0; i < count; ++i) {
        const SamplePiece *piece = &e->sample->pieces[i];
        token_list_clear(&e->ids);
        if (piece->end > piece->start)
            TRY(tokenizer_encode(e->tokenizer, e->scratch, e->sample->text.data + piece->start, piece->end - piece->start,
                                 &e->ids));
        e->measured[i] = (int64_t)e->ids.count;
        e->kept[i] = (TruncatePiece){e->measured[i], piece->order, piece->whole};
    }
    return STATUS_OK;
}

static Status encode_shortened(Encoder *e, int64_t max_length, bool *fits) {
    TRY(measure(e));
    *fits = truncate_pieces(e->kept, e->sample->count, max_length - e->sample->append_eos);
    if (!*fits) return STATUS_OK;
    TRY(encode_pieces(e));
    /* Pieces tokenized together nearly always need fewer tokens than apart; where not, what was measured is taken. */
    e->apart = (int64_t)e->input_ids.count > max_length;
    return e->apart ? encode_pieces(e) : STATUS_OK;
}

/* *fits false: template and completion alone are too long. */
static Status encode_within(Encoder *e, int64_t max_length, bool truncate, bool *fits, bool *shortened) {
    TRY(encode_pieces(e));
    *fits = true;
    *shortened = (int64_t)e->input_ids.count > max_length;
    if (*shortened && !truncate)
        INVALID("a sample is %zu tokens long, data.max_length is %lld and data.truncate is false", e->input_ids.count,
                (long long)max_length);
    return *shortened ? encode_shortened(e, max_length, fits) : STATUS_OK;
}

static Status encode_sample(Encoder *e, int64_t max_length, bool truncate, SampleList *out) {
    bool fits, shortened;
    TRY(encode_within(e, max_length, truncate, &fits, &shortened));
    if (!fits) {
        ++out->counts.dropped[DROP_COMPLETION_TOO_LONG];
        return STATUS_OK;
    }
    int64_t before = out->counts.samples;
    TRY(sample_list_add(out, e->input_ids.ids, e->labels.ids, (int64_t)e->input_ids.count));
    if (shortened) out->counts.truncated += out->counts.samples - before;
    return STATUS_OK;
}

Status sample_text_encode(const SampleText *sample, const Tokenizer *tokenizer, TokenizerScratch *scratch, int64_t max_length,
                          bool truncate, SampleList *out) {
    Encoder encoder = {.sample = sample, .tokenizer = tokenizer, .scratch = scratch};
    Status status = encode_sample(&encoder, max_length, truncate, out);
    encoder_free(&encoder);
    return status;
}

bool sample_text_keep_prompt(SampleText *sample) {
    size_t first = sample->count;
    for (size_t i = sample->count; i-- > 0;) {
        if (sample->pieces[i].label)
            first = i;
        else if (first < sample->count)
            break;
    }
    if (first == sample->count) return false;
    sample->append_eos = false;
    sample->count = first;
    sample->text.length = sample->pieces[first].start;
    if (sample->text.data) sample->text.data[sample->text.length] = 0;
    return true;
}

static Status fit_prompt(Encoder *e, int64_t max_length, bool truncate, PromptFit *fit) {
    bool fits = true;
    TRY(encode_pieces(e));
    *fit = PROMPT_WHOLE;
    if ((int64_t)e->input_ids.count <= max_length) return STATUS_OK;
    if (truncate) TRY(encode_shortened(e, max_length, &fits));
    *fit = truncate && fits ? PROMPT_SHORTENED : PROMPT_TOO_LONG;
    return STATUS_OK;
}

Status sample_text_fit_prompt(const SampleText *sample, const Tokenizer *tokenizer, TokenizerScratch *scratch, int64_t max_length,
                              bool truncate, TokenList *ids, PromptFit *fit) {
    Encoder encoder = {.sample = sample, .tokenizer = tokenizer, .scratch = scratch};
    Status status = fit_prompt(&encoder, max_length, truncate, fit);
    if (!status && *fit != PROMPT_TOO_LONG) status = token_list_append(ids, encoder.input_ids.ids, encoder.input_ids.count);
    encoder_free(&encoder);
    return status;
}

Status sample_text_encode_prompt(SampleText *sample, const Tokenizer *tokenizer, TokenizerScratch *scratch, int64_t max_length,
                                 bool truncate, TokenList *ids, bool *shortened) {
    PromptFit fit;
    sample_text_keep_prompt(sample);
    TRY(sample_text_fit_prompt(sample, tokenizer, scratch, max_length, truncate, ids, &fit));
    *shortened = fit == PROMPT_SHORTENED;
    if (fit == PROMPT_TOO_LONG && truncate)
        INVALID("the prompt's template alone has more than %lld tokens", (long long)max_length);
    if (fit == PROMPT_TOO_LONG)
        INVALID("the prompt is longer than data.max_length, %lld, and data.truncate is false", (long long)max_length);
    return STATUS_OK;
}
