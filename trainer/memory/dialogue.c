#include "trainer/memory/dialogue.h"

#include "io/words.h"

#include <stdlib.h>
#include <string.h>

/* What was said, by whom, before speakers become roles. */
typedef struct Speech {
    size_t speaker; /* in Reader.speakers */
    char *text;
} Speech;

typedef struct Reader {
    StringList speakers; /* in order of appearance */
    Speech *speeches;
    size_t count, capacity;
    Text squeezed, clean;
} Reader;

static void reader_free(Reader *r) {
    string_list_free(&r->speakers);
    for (size_t i = 0; i < r->count; ++i) free(r->speeches[i].text);
    free(r->speeches);
    text_free(&r->squeezed);
    text_free(&r->clean);
}

static Status speaker_index(Reader *r, const char *name, size_t length, size_t *index) {
    for (*index = 0; *index < r->speakers.count; ++*index)
        if (strlen(r->speakers.items[*index]) == length && !memcmp(r->speakers.items[*index], name, length)) return STATUS_OK;
    return string_list_append(&r->speakers, name, length);
}

/* Copies text without "{...}" marks of up to 40 bytes. */
static Status without_marks(const char *text, size_t length, Text *out) {
    text_clear(out);
    TRY(text_append(out, "", 0));
    for (size_t i = 0; i < length; ++i) {
        const char *close = text[i] == '{' ? memchr(text + i, '}', length - i < 40 ? length - i : 40) : NULL;
        if (close)
            i = (size_t)(close - text);
        else
            TRY(text_append(out, text + i, 1));
    }
    return STATUS_OK;
}

static Status add_speech(Reader *r, const char *name, size_t name_length, const char *text, size_t length) {
    TRY(without_marks(text, length, &r->clean));
    TRY(words_squeeze(r->clean.data, r->clean.length, 0, &r->squeezed));
    if (!r->squeezed.length) return STATUS_OK;
    if (r->count == r->capacity) {
        size_t capacity = r->capacity ? 2 * r->capacity : 32;
        Speech *grown;
        TRY_ALLOC(grown = realloc(r->speeches, capacity * sizeof *grown));
        r->speeches = grown;
        r->capacity = capacity;
    }
    Speech *speech = &r->speeches[r->count];
    TRY(speaker_index(r, name, name_length, &speech->speaker));
    TRY_ALLOC(speech->text = strdup(r->squeezed.data));
    ++r->count;
    return STATUS_OK;
}

/* "NAME: text"; a line without a name of at most 40 bytes goes on with the speech before it. */
static Status add_line(Reader *r, const char *line, size_t length) {
    const char *colon = memchr(line, ':', length < 40 ? length : 40);
    if (!colon || colon == line) {
        const char *name = r->count ? r->speakers.items[r->speeches[r->count - 1].speaker] : "#Person1#";
        return add_speech(r, name, strlen(name), line, length);
    }
    size_t name = (size_t)(colon - line);
    return add_speech(r, line, name, colon + 1, length - name - 1);
}

static Status read_lines(Reader *r, const JsonValue *record) {
    const char *text;
    size_t length;
    TRY(json_value_get_string(record, "dialogue", &text, &length));
    for (size_t start = 0; start < length;) {
        const char *end = memchr(text + start, '\n', length - start);
        size_t line = (end ? (size_t)(end - text) : length) - start;
        TRY(add_line(r, text + start, line));
        start += line + 1;
    }
    return STATUS_OK;
}

static Status read_speeches(Reader *r, const JsonValue *record, const char *key, const char *name_key, const char *text_key) {
    JsonValue *items;
    TRY(json_value_get_array(record, key, &items));
    for (size_t i = 0; i < json_value_size(items); ++i) {
        const JsonValue *item = json_value_at(items, i);
        const char *name, *text;
        size_t name_length, length;
        Status status = json_value_get_string(item, name_key, &name, &name_length);
        if (!status) status = json_value_get_string(item, text_key, &text, &length);
        bool system = !status && !strcmp(name_key, "role") && !strcmp(name, "system");
        if (!status && !system) status = add_speech(r, name, name_length, text, length);
        if (status) return status_prefix(status, "%s[%zu]", key, i);
    }
    return STATUS_OK;
}

/* A member that may be missing, squeezed. */
static Status read_optional(const JsonValue *record, const char *key, Text *out) {
    size_t length;
    const char *text = json_value_string(json_value_get(record, key), &length);
    return text ? words_squeeze(text, length, 0, out) : STATUS_OK;
}

static Status read_pair(Reader *r, const JsonValue *record, Dialogue *out) {
    TRY(read_lines(r, record));
    TRY(read_optional(record, "fname", &out->name));
    if (!out->name.length) TRY(read_optional(record, "id", &out->name));
    return read_optional(record, "summary", &out->summary);
}

static Status read_meeting(Reader *r, const JsonValue *record, Dialogue *out) {
    TRY(read_speeches(r, record, "meeting_transcripts", "speaker", "content"));
    TRY(read_optional(record, "meeting_id", &out->name));
    const JsonValue *general = json_value_at(json_value_get(record, "general_query_list"), 0);
    return read_optional(general, "answer", &out->summary);
}

static Status read_chat(Reader *r, const JsonValue *record, Dialogue *out) {
    (void)out; /* has neither name nor summary */
    return read_speeches(r, record, "messages", "role", "content");
}

static const struct {
    const char *name;
    Status (*read)(Reader *r, const JsonValue *record, Dialogue *out);
} formats[] = {{"dialogsum", read_pair}, {"samsum", read_pair}, {"qmsum", read_meeting}, {"chat", read_chat}};
enum { FORMATS = sizeof formats / sizeof *formats };

Status dialogue_check_format(const char *format) {
    for (int i = 0; i < FORMATS; ++i)
        if (!strcmp(formats[i].name, format)) return STATUS_OK;
    INVALID("format \"%s\" is not dialogsum, samsum, qmsum or chat", format);
}

static Status append_turn(Dialogue *dialogue, bool user, const Text *text) {
    if (dialogue->count && dialogue->turns[dialogue->count - 1].user == user) {
        DialogueTurn *last = &dialogue->turns[dialogue->count - 1];
        size_t length = strlen(last->text);
        char *grown = realloc(last->text, length + text->length + 2);
        TRY_ALLOC(grown);
        grown[length] = ' ';
        memcpy(grown + length + 1, text->data, text->length + 1);
        last->text = grown;
        return STATUS_OK;
    }
    if (dialogue->count == dialogue->capacity) {
        size_t capacity = dialogue->capacity ? 2 * dialogue->capacity : 32;
        DialogueTurn *grown;
        TRY_ALLOC(grown = realloc(dialogue->turns, capacity * sizeof *grown));
        dialogue->turns = grown;
        dialogue->capacity = capacity;
    }
    char *copy = strdup(text->data);
    TRY_ALLOC(copy);
    dialogue->turns[dialogue->count++] = (DialogueTurn){user, copy};
    return STATUS_OK;
}

static Status assign_roles(Reader *r, size_t user, bool name_others, Dialogue *out) {
    for (size_t i = 0; i < r->count; ++i) {
        const Speech *speech = &r->speeches[i];
        text_clear(&r->squeezed);
        if (speech->speaker != user && name_others)
            TRY(text_append_format(&r->squeezed, "%s: ", r->speakers.items[speech->speaker]));
        TRY(text_append_string(&r->squeezed, speech->text));
        TRY(append_turn(out, speech->speaker == user, &r->squeezed));
    }
    return STATUS_OK;
}

/* A chat knows its user; elsewhere it is drawn. */
static Status finish(Reader *r, const char *format, int64_t number, RandomStream *random, Dialogue *out) {
    size_t user = r->speakers.count ? (size_t)random_below(random, r->speakers.count) : 0;
    if (!strcmp(format, "chat"))
        for (user = 0; user < r->speakers.count && strcmp(r->speakers.items[user], "user");) ++user;
    if (!out->name.length) TRY(text_append_format(&out->name, "%s-%lld", format, (long long)number));
    TRY(text_append(&out->summary, "", 0));
    return assign_roles(r, user, r->speakers.count > 2, out);
}

static Status read(Reader *r, const char *format, const JsonValue *record, Dialogue *out) {
    for (int i = 0; i < FORMATS; ++i)
        if (!strcmp(formats[i].name, format)) return formats[i].read(r, record, out);
    return dialogue_check_format(format);
}

Status dialogue_read(const char *format, const JsonValue *record, int64_t number, RandomStream *random, Dialogue *out) {
    *out = (Dialogue){.turns = NULL};
    Reader reader = {.speeches = NULL};
    Status status = read(&reader, format, record, out);
    if (!status) status = finish(&reader, format, number, random, out);
    reader_free(&reader);
    if (status) dialogue_free(out);
    return status;
}

void dialogue_free(Dialogue *dialogue) {
    for (size_t i = 0; i < dialogue->count; ++i) free(dialogue->turns[i].text);
    free(dialogue->turns);
    text_free(&dialogue->name);
    text_free(&dialogue->summary);
    *dialogue = (Dialogue){.turns = NULL};
}
