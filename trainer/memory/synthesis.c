#include "trainer/memory/synthesis.h"

#include "trainer/memory/dialogue.h"
#include "trainer/memory/structure_update.h"

#include <string.h>

/* One dialogue on its way through its sessions. */
typedef struct Progress {
    Synthesis *synthesis;
    const Dialogue *dialogue;
    RandomStream *random;
    SessionMemory memory;
    JsonValue *document; /* {file_name, doc_summary} or NULL */
    Text summary;
} Progress;

static Status make_turns(const Dialogue *dialogue, size_t start, size_t end, JsonValue **out) {
    TRY_ALLOC(*out = json_value_new_array());
    for (size_t i = start; i < end; ++i) {
        JsonValue *turn = json_value_new_object();
        TRY(json_value_append(*out, turn));
        TRY(json_value_set_string(turn, "role", dialogue->turns[i].user ? "user" : "assistant"));
        TRY(json_value_set_string(turn, "text", dialogue->turns[i].text));
    }
    return STATUS_OK;
}

static Status make_document(const Dialogue *dialogue, JsonValue **out) {
    Text name = {0};
    TRY_ALLOC(*out = json_value_new_object());
    Status status = text_append_format(&name, "%s.txt", dialogue->name.data);
    if (!status) status = json_value_set_string(*out, "file_name", name.data);
    if (!status) status = json_value_set_string(*out, "doc_summary", dialogue->summary.data);
    text_free(&name);
    return status;
}

/* The fact that structure_update made of the document, if it still stands. */
static const char *document_fact(const Progress *p) {
    const char *name = json_value_string(json_value_get(p->document, "file_name"), NULL);
    const StringList *facts = &p->memory.lists[MEMORY_FACTS];
    for (size_t i = 0; name && i < facts->count; ++i)
        if (!strncmp(facts->items[i], name, strlen(name))) return facts->items[i];
    return NULL;
}

static void count_slots(SynthesisCounts *counts, const JsonValue *slots, bool *more_than_focus) {
    *more_than_focus = false;
    for (int slot = 0; slot < SLOTS; ++slot)
        if (slot != SLOT_FOCUS && json_value_size(json_value_get(slots, target_slot_keys[slot]))) *more_than_focus = true;
    if (!*more_than_focus) return;
    for (int slot = 0; slot < SLOTS; ++slot)
        counts->slots[slot] += json_value_size(json_value_get(slots, target_slot_keys[slot])) > 0;
}

static Status write_line(Progress *p, JsonValue *record, const JsonValue *slots, Text *out) {
    bool wanted;
    ++p->synthesis->counts.sessions;
    count_slots(&p->synthesis->counts, slots, &wanted);
    if (!wanted) {
        ++p->synthesis->counts.left_out;
        return STATUS_OK;
    }
    ++p->synthesis->counts.samples;
    TRY(json_value_write(record, 0, out));
    return text_append(out, "\n", 1);
}

static Status set_document(const Progress *p, JsonValue *record) {
    if (!p->document) return json_value_set(record, "active_document", json_value_new_null());
    JsonValue *document;
    Status status = make_document(p->dialogue, &document);
    if (!status) return json_value_set(record, "active_document", document);
    json_value_free(document);
    return status;
}

/* Fills record, whose members own what is put in; then the memory is that after the session. */
static Status make_record(Progress *p, size_t start, size_t end, JsonValue *record, JsonValue **slots) {
    JsonValue *memory, *turns = NULL;
    bool last = end == p->dialogue->count;
    TRY(session_memory_to_json(&p->memory, &memory));
    TRY(json_value_set(record, "previous_memory", memory));
    Status status = make_turns(p->dialogue, start, end, &turns);
    if (!status) status = structure_update(p->synthesis->rules, turns, p->document, &p->memory);
    if (status) {
        json_value_free(turns);
        return status;
    }
    TRY(json_value_set(record, "recent_turns", turns));
    TRY(set_document(p, record));
    text_clear(&p->summary);
    const char *human = last && !p->document ? p->dialogue->summary.data : "";
    TRY(summary_target(p->synthesis->phrases, &p->memory, document_fact(p), human, p->random, &p->summary, slots));
    TRY(json_value_set(record, "summary", json_value_new_string(p->summary.data ? p->summary.data : "", p->summary.length)));
    return json_value_set(record, "slots", *slots);
}

static Status add_session(Progress *p, size_t start, size_t end, Text *out) {
    JsonValue *record = json_value_new_object(), *slots = NULL;
    TRY_ALLOC(record);
    Status status = make_record(p, start, end, record, &slots);
    if (!status) status = write_line(p, record, slots, out);
    json_value_free(record);
    if (status) return status;
    text_clear(&p->memory.narrative);
    return text_append(&p->memory.narrative, p->summary.data ? p->summary.data : "", p->summary.length);
}

static Status add_sessions(Progress *p, Text *out) {
    const Dialogue *dialogue = p->dialogue;
    bool with_document = random_below(p->random, 10) < 3;
    if (with_document && dialogue->summary.length && dialogue->count >= 2 * SESSION_TURNS_MOST)
        TRY(make_document(dialogue, &p->document));
    Synthesis *s = p->synthesis;
    for (size_t start = 0, end; start < dialogue->count && !(s->most_samples && s->counts.samples >= s->most_samples);
         start = end) {
        end = start + SESSION_TURNS_LEAST + (size_t)random_below(p->random, SESSION_TURNS_MOST - SESSION_TURNS_LEAST + 1);
        if (end > dialogue->count || dialogue->count - end < SESSION_TURNS_LEAST) end = dialogue->count;
        TRY(add_session(p, start, end, out));
    }
    return STATUS_OK;
}

static Status add_dialogue(Synthesis *synthesis, const Dialogue *dialogue, RandomStream *random, Text *out) {
    Progress progress = {.synthesis = synthesis, .dialogue = dialogue, .random = random};
    JsonValue *empty = json_value_new_object();
    TRY_ALLOC(empty);
    Status status = session_memory_read(empty, &progress.memory);
    json_value_free(empty);
    TRY(status);
    status = add_sessions(&progress, out);
    session_memory_free(&progress.memory);
    json_value_free(progress.document);
    text_free(&progress.summary);
    return status;
}

Status synthesis_add(Synthesis *synthesis, const JsonValue *record, int64_t number, Text *out) {
    RandomStream random = random_stream(synthesis->seed, (uint64_t)number);
    Dialogue dialogue;
    TRY(dialogue_read(synthesis->format, record, number, &random, &dialogue));
    ++synthesis->counts.dialogues;
    Status status = add_dialogue(synthesis, &dialogue, &random, out);
    dialogue_free(&dialogue);
    return status;
}
