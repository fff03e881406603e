#include "trainer/memory/structure_update.h"

#include "io/words.h"

#include <string.h>

enum { NO_QUESTION = -1 };

typedef struct Update {
    const MemoryRules *rules;
    SessionMemory *memory;
    StringList sentences; /* of the turn at hand */
    Text folded, scratch, squeezed;
    int64_t asked; /* the last question of the user turn just before; NO_QUESTION */
} Update;

static void update_free(Update *u) {
    string_list_free(&u->sentences);
    text_free(&u->folded);
    text_free(&u->scratch);
    text_free(&u->squeezed);
}

static Status add_entry(Update *u, MemoryListName list, const char *sentence, size_t *index) {
    TRY(words_squeeze(sentence, strlen(sentence), (size_t)u->rules->item_words, &u->squeezed));
    return memory_list_add(&u->memory->lists[list], u->squeezed.data, index);
}

/* Removes the entries that have at least `threshold` of their words in a folded text. */
static Status remove_covered(Update *u, MemoryListName name, const char *folded, double threshold) {
    StringList *list = &u->memory->lists[name];
    for (size_t i = 0; i < list->count;) {
        TRY(words_fold(list->items[i], strlen(list->items[i]), &u->scratch));
        if (folded_overlap(u->scratch.data, folded, u->rules->stop_words.data) >= threshold)
            string_list_remove(list, i);
        else
            ++i;
    }
    return STATUS_OK;
}

static Status replace(Text *text, const Text *by) {
    text_clear(text);
    return text_append(text, by->data, by->length);
}

/* u->folded holds the sentence's folded form. */
static Status take_statement(Update *u, const char *sentence, bool user, bool is_goal) {
    const MemoryRules *rules = u->rules;
    const char *folded = u->folded.data;
    bool solution = memory_phrase_inside(&rules->solutions, folded);
    if (solution) TRY(remove_covered(u, MEMORY_PROBLEMS, folded, rules->problem_overlap));
    if (memory_phrase_inside(&rules->decisions, folded)) return add_entry(u, MEMORY_DECISIONS, sentence, NULL);
    if (!solution && memory_phrase_inside(&rules->open_problems, folded)) return add_entry(u, MEMORY_PROBLEMS, sentence, NULL);
    bool fact = memory_phrase_inside(user ? &rules->user_facts : &rules->assistant_facts, folded);
    return fact && !is_goal ? add_entry(u, MEMORY_FACTS, sentence, NULL) : STATUS_OK;
}

static Status take_sentence(Update *u, const char *sentence, bool user) {
    TRY(words_fold(sentence, strlen(sentence), &u->folded));
    bool is_goal = user && memory_phrase_inside(&u->rules->goal, u->folded.data);
    if (is_goal) {
        TRY(words_squeeze(sentence, strlen(sentence), (size_t)u->rules->item_words, &u->squeezed));
        TRY(replace(&u->memory->goal, &u->squeezed));
    }
    if (!sentence_is_question(sentence)) return take_statement(u, sentence, user, is_goal);
    if (!user) return STATUS_OK;
    size_t index;
    TRY(add_entry(u, MEMORY_QUESTIONS, sentence, &index));
    u->asked = (int64_t)index;
    return STATUS_OK;
}

/* An assistant turn answers before its own sentences are taken. */
static Status answer_questions(Update *u) {
    const StringList *sentences = &u->sentences;
    if (u->asked != NO_QUESTION && sentences->count) {
        TRY(words_fold(sentences->items[0], strlen(sentences->items[0]), &u->folded));
        if (memory_phrase_first(&u->rules->yes_no_answers, u->folded.data))
            string_list_remove(&u->memory->lists[MEMORY_QUESTIONS], (size_t)u->asked);
    }
    u->asked = NO_QUESTION;
    text_clear(&u->squeezed);
    for (size_t i = 0; i < sentences->count; ++i) {
        if (sentence_is_question(sentences->items[i])) continue;
        TRY(text_append_string(&u->squeezed, sentences->items[i]));
        TRY(text_append(&u->squeezed, " ", 1));
    }
    TRY(words_fold(u->squeezed.data ? u->squeezed.data : "", u->squeezed.length, &u->folded));
    return remove_covered(u, MEMORY_QUESTIONS, u->folded.data, u->rules->question_overlap);
}

static Status take_text(Update *u, const char *text, size_t length, bool user) {
    string_list_clear(&u->sentences);
    TRY(sentences_split(text, length, &u->rules->abbreviations, &u->sentences));
    if (user && u->sentences.count) {
        u->asked = NO_QUESTION;
        TRY(words_squeeze(text, length, (size_t)u->rules->focus_words, &u->squeezed));
        TRY(replace(&u->memory->current_focus, &u->squeezed));
    }
    if (!user) TRY(answer_questions(u));
    for (size_t i = 0; i < u->sentences.count; ++i) TRY(take_sentence(u, u->sentences.items[i], user));
    return STATUS_OK;
}

static Status take_turn(Update *u, const JsonValue *turn) {
    const char *role, *text;
    size_t length;
    TRY(json_value_get_string(turn, "role", &role, NULL));
    bool user = !strcmp(role, "user");
    if (!user && strcmp(role, "assistant")) INVALID("\"role\" must be user or assistant, found \"%s\"", role);
    TRY(json_value_get_string(turn, "text", &text, &length));
    return take_text(u, text, length, user);
}

static Status take_document(Update *u, const JsonValue *document) {
    if (!document || json_value_is_null(document)) return STATUS_OK;
    if (!json_value_is_object(document)) INVALID("expected an object, found %s", json_value_type_name(document));
    if (!json_value_size(document)) return STATUS_OK;
    const char *name, *summary;
    size_t name_length, length;
    TRY(json_value_get_string(document, "file_name", &name, &name_length));
    TRY(json_value_get_string(document, "doc_summary", &summary, &length));
    string_list_clear(&u->sentences);
    TRY(sentences_split(summary, length, &u->rules->abbreviations, &u->sentences));
    if (!u->sentences.count) return STATUS_OK;
    TRY(words_squeeze(name, name_length, 0, &u->scratch));
    TRY(text_append_format(&u->scratch, ": %s", u->sentences.items[0]));
    return add_entry(u, MEMORY_FACTS, u->scratch.data, NULL);
}

static Status update(Update *u, const JsonValue *turns, const JsonValue *document) {
    TRY(status_prefix(take_document(u, document), "active_document"));
    if (!json_value_is_array(turns)) INVALID("recent_turns: expected an array, found %s", json_value_type_name(turns));
    for (size_t i = 0; i < json_value_size(turns); ++i)
        TRY(status_prefix(take_turn(u, json_value_at(turns, i)), "recent_turns[%zu]", i));
    return STATUS_OK;
}

Status structure_update(const MemoryRules *rules, const JsonValue *turns, const JsonValue *document, SessionMemory *memory) {
    Update u = {.rules = rules, .memory = memory, .asked = NO_QUESTION};
    Status status = update(&u, turns, document);
    update_free(&u);
    return status;
}
