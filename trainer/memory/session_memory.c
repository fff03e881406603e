#include "trainer/memory/session_memory.h"

#include "io/words.h"

#include <string.h>

const char *const memory_list_keys[MEMORY_LISTS] = {"established_facts", "unresolved_questions", "decisions", "open_problems"};

/* Members of "structured" in the order in which they are written; list -1: a string. */
static const struct Member {
    const char *key;
    int list;
} members[] = {{"goal", -1},
               {"established_facts", MEMORY_FACTS},
               {"current_focus", -1},
               {"unresolved_questions", MEMORY_QUESTIONS},
               {"decisions", MEMORY_DECISIONS},
               {"open_problems", MEMORY_PROBLEMS}};
enum { MEMBERS = sizeof members / sizeof *members };

static Text *string_member(SessionMemory *memory, const char *key) {
    return !strcmp(key, "goal") ? &memory->goal : &memory->current_focus;
}

static Status read_string(const JsonValue *value, const char *key, Text *out) {
    size_t length;
    const char *text = json_value_string(value, &length);
    if (!text) INVALID("\"%s\" must be a string, found %s", key, json_value_type_name(value));
    if (memchr(text, 0, length)) INVALID("\"%s\" holds a NUL character", key);
    text_clear(out);
    return text_append(out, text, length);
}

static Status read_list(const JsonValue *value, const char *key, StringList *out) {
    if (!json_value_is_array(value)) INVALID("\"%s\" must be an array, found %s", key, json_value_type_name(value));
    for (size_t i = 0; i < json_value_size(value); ++i) {
        size_t length;
        const char *text = json_value_string(json_value_at(value, i), &length);
        if (!text) INVALID("\"%s\"[%zu] must be a string, found %s", key, i, json_value_type_name(json_value_at(value, i)));
        if (memchr(text, 0, length)) INVALID("\"%s\"[%zu] holds a NUL character", key, i);
        if (length) TRY(memory_list_add(out, text, NULL));
    }
    return STATUS_OK;
}

static Status read_structured(const JsonValue *object, SessionMemory *out) {
    if (!json_value_is_object(object)) INVALID("\"structured\" must be an object, found %s", json_value_type_name(object));
    for (JsonMember m = {0}; json_value_next_member(object, &m);) {
        int i = 0;
        while (i < MEMBERS && strcmp(members[i].key, m.key)) ++i;
        if (i == MEMBERS)
            INVALID("\"structured\" has an unknown member \"%s\"; members: goal, established_facts, current_focus, "
                    "unresolved_questions, decisions, open_problems",
                    m.key);
        if (members[i].list < 0)
            TRY(read_string(m.value, m.key, string_member(out, m.key)));
        else
            TRY(read_list(m.value, m.key, &out->lists[members[i].list]));
    }
    return STATUS_OK;
}

static Status read_members(const JsonValue *object, SessionMemory *out) {
    TRY(text_append(&out->narrative, "", 0));
    TRY(text_append(&out->goal, "", 0));
    TRY(text_append(&out->current_focus, "", 0));
    if (!json_value_is_object(object)) INVALID("expected an object, found %s", json_value_type_name(object));
    for (JsonMember m = {0}; json_value_next_member(object, &m);) {
        if (!strcmp(m.key, "narrative"))
            TRY(read_string(m.value, m.key, &out->narrative));
        else if (!strcmp(m.key, "structured"))
            TRY(read_structured(m.value, out));
        else
            INVALID("unknown member \"%s\"; members: narrative, structured", m.key);
    }
    return STATUS_OK;
}

Status session_memory_read(const JsonValue *object, SessionMemory *out) {
    *out = (SessionMemory){.narrative = {0}};
    Status status = read_members(object, out);
    if (status) session_memory_free(out);
    return status;
}

Status session_memory_read_file(const char *path, SessionMemory *out) {
    JsonValue *object;
    TRY(json_value_read_file(path, &object));
    Status status = status_prefix(session_memory_read(object, out), "%s", path);
    json_value_free(object);
    return status;
}

void session_memory_free(SessionMemory *memory) {
    text_free(&memory->narrative);
    text_free(&memory->goal);
    text_free(&memory->current_focus);
    for (int i = 0; i < MEMORY_LISTS; ++i) string_list_free(&memory->lists[i]);
}

static Status set_text(JsonValue *object, const char *key, const Text *text) {
    return json_value_set(object, key, json_value_new_string(text->data, text->length));
}

static Status set_list(JsonValue *object, const char *key, const StringList *list) {
    JsonValue *array = json_value_new_array();
    TRY_ALLOC(array);
    Status status = STATUS_OK;
    for (size_t i = 0; i < list->count && !status; ++i)
        status = json_value_append(array, json_value_new_string(list->items[i], strlen(list->items[i])));
    if (!status) return json_value_set(object, key, array);
    json_value_free(array);
    return status;
}

static Status set_members(JsonValue *object, const SessionMemory *memory) {
    TRY(set_text(object, "narrative", &memory->narrative));
    JsonValue *structured = json_value_new_object();
    TRY(json_value_set(object, "structured", structured)); /* which now owns it */
    for (int i = 0; i < MEMBERS; ++i) {
        const struct Member *m = &members[i];
        if (m->list >= 0)
            TRY(set_list(structured, m->key, &memory->lists[m->list]));
        else
            TRY(set_text(structured, m->key, !strcmp(m->key, "goal") ? &memory->goal : &memory->current_focus));
    }
    return STATUS_OK;
}

Status session_memory_to_json(const SessionMemory *memory, JsonValue **out) {
    TRY_ALLOC(*out = json_value_new_object());
    Status status = set_members(*out, memory);
    if (!status) return STATUS_OK;
    json_value_free(*out);
    *out = NULL;
    return status;
}

Status session_memory_write(const SessionMemory *memory, Text *out) {
    JsonValue *object;
    TRY(session_memory_to_json(memory, &object));
    Status status = json_value_write(object, 2, out);
    if (!status) status = text_append(out, "\n", 1);
    json_value_free(object);
    return status;
}

/* An entry without letters ("???") is compared as it is written. */
static Status same_words(const char *a, const Text *folded, const char *written, Text *scratch, bool *same) {
    TRY(words_fold(a, strlen(a), scratch));
    *same = folded->length ? !strcmp(scratch->data, folded->data) : !strcmp(a, written);
    return STATUS_OK;
}

static Status find_entry(const StringList *list, const char *entry, Text *folded, Text *scratch, size_t *index) {
    TRY(words_fold(entry, strlen(entry), folded));
    bool same = false;
    for (*index = 0; *index < list->count; ++*index) {
        TRY(same_words(list->items[*index], folded, entry, scratch, &same));
        if (same) break;
    }
    return STATUS_OK;
}

Status memory_list_add(StringList *list, const char *entry, size_t *index) {
    Text folded = {0}, scratch = {0};
    size_t found = 0;
    Status status = find_entry(list, entry, &folded, &scratch, &found);
    if (!status && found == list->count) {
        status = string_list_append(list, entry, strlen(entry));
        if (!status && list->count > MEMORY_LIST_ITEMS) {
            string_list_remove(list, 0);
            --found;
        }
    }
    if (index) *index = found;
    text_free(&folded);
    text_free(&scratch);
    return status;
}
