#include "trainer/memory/summary_target.h"

#include "io/prompt_files.h"
#include "io/words.h"

#include <string.h>

const char *const target_slot_keys[SLOTS] = {"current_focus", "goal",          "unresolved_questions",
                                             "decisions",     "open_problems", "active_document"};

static Status read_phrases(const JsonValue *object, TargetPhrases *out) {
    for (int slot = 0; slot < SLOTS; ++slot) {
        JsonValue *phrases;
        TRY(json_value_get_array(object, target_slot_keys[slot], &phrases));
        for (size_t i = 0; i < json_value_size(phrases); ++i) {
            const char *phrase = json_value_string(json_value_at(phrases, i), NULL);
            if (!phrase || !strstr(phrase, "{}")) INVALID("\"%s\"[%zu] is no string with {}", target_slot_keys[slot], i);
            TRY(string_list_append(&out->phrases[slot], phrase, strlen(phrase)));
        }
        if (!out->phrases[slot].count) INVALID("\"%s\" is empty", target_slot_keys[slot]);
    }
    return STATUS_OK;
}

Status target_phrases_load(TargetPhrases *out) {
    *out = (TargetPhrases){.phrases = {{0}}};
    JsonValue *object;
    TRY(json_value_parse(prompt_memory_targets_json, strlen(prompt_memory_targets_json), &object));
    Status status = status_prefix(read_phrases(object, out), "memory_targets.json");
    json_value_free(object);
    if (status) target_phrases_free(out);
    return status;
}

void target_phrases_free(TargetPhrases *phrases) {
    for (int slot = 0; slot < SLOTS; ++slot) string_list_free(&phrases->phrases[slot]);
}

typedef struct Target {
    const TargetPhrases *phrases;
    RandomStream *random;
    Text *out;
    JsonValue *slots;
    Text items, item, sentence;
    size_t words; /* stated so far */
} Target;

static size_t count_words(const char *text) {
    size_t words = *text != 0;
    for (; *text; ++text) words += *text == ' ';
    return words;
}

/* Appends a sentence if it still fits; *fits tells. */
static Status state(Target *t, const char *sentence, bool *fits) {
    size_t words = count_words(sentence);
    *fits = t->words + words <= TARGET_WORDS;
    if (!*fits) return STATUS_OK;
    t->words += words;
    if (t->out->length) TRY(text_append(t->out, " ", 1));
    return text_append_string(t->out, sentence);
}

/* Without a full stop at its end, and with " ..." where words are missing. */
static Status quote_item(Target *t, const char *text, bool first) {
    TRY(words_squeeze(text, strlen(text), TARGET_ITEM_WORDS, &t->item));
    size_t shown = t->item.length;
    bool cut = count_words(text) > TARGET_ITEM_WORDS;
    if (shown > 1 && t->item.data[shown - 1] == '.' && t->item.data[shown - 2] != '.') --shown;
    return text_append_format(&t->items, "%s\"%.*s%s\"", first ? "" : "; ", (int)shown, t->item.data, cut ? " ..." : "");
}

static Status quote_items(Target *t, const char *const *items, size_t count, JsonValue *array) {
    text_clear(&t->items);
    for (size_t i = 0; i < count; ++i) {
        TRY(quote_item(t, items[i], i == 0));
        TRY(json_value_append(array, json_value_new_string(t->item.data, t->item.length)));
    }
    return STATUS_OK;
}

static Status state_items(Target *t, TargetSlot slot, bool *fits) {
    const StringList *phrases = &t->phrases->phrases[slot];
    const char *phrase = phrases->items[random_below(t->random, phrases->count)], *place = strstr(phrase, "{}");
    text_clear(&t->sentence);
    TRY(text_append(&t->sentence, phrase, (size_t)(place - phrase)));
    TRY(text_append(&t->sentence, t->items.data, t->items.length));
    TRY(text_append_string(&t->sentence, place + 2));
    TRY(text_append(&t->sentence, ".", 1));
    return state(t, t->sentence.data, fits);
}

static Status add_slot(Target *t, TargetSlot slot, const char *const *items, size_t count) {
    JsonValue *array = json_value_new_array();
    TRY_ALLOC(array);
    bool fits = true;
    Status status = quote_items(t, items, count, array);
    if (!status && count) status = state_items(t, slot, &fits);
    if (!status && !fits) {
        json_value_free(array);
        TRY_ALLOC(array = json_value_new_array());
    }
    if (!status) return json_value_set(t->slots, target_slot_keys[slot], array);
    json_value_free(array);
    return status;
}

static Status add_list(Target *t, TargetSlot slot, const StringList *list) {
    size_t count = list->count < TARGET_ITEMS ? list->count : TARGET_ITEMS;
    return add_slot(t, slot, (const char *const *)list->items + (list->count - count), count);
}

static Status compose(Target *t, const SessionMemory *memory, const char *document, const char *summary) {
    const char *focus = memory->current_focus.data, *goal = memory->goal.data;
    bool fits;
    TRY(add_slot(t, SLOT_FOCUS, &focus, *focus != 0));
    TRY(add_slot(t, SLOT_GOAL, &goal, *goal != 0));
    TRY(add_list(t, SLOT_QUESTIONS, &memory->lists[MEMORY_QUESTIONS]));
    TRY(add_list(t, SLOT_DECISIONS, &memory->lists[MEMORY_DECISIONS]));
    TRY(add_list(t, SLOT_PROBLEMS, &memory->lists[MEMORY_PROBLEMS]));
    TRY(add_slot(t, SLOT_DOCUMENT, &document, document != NULL));
    return *summary ? state(t, summary, &fits) : STATUS_OK;
}

Status summary_target(const TargetPhrases *phrases, const SessionMemory *memory, const char *document, const char *summary,
                      RandomStream *random, Text *out, JsonValue **slots) {
    Target target = {.phrases = phrases, .random = random, .out = out};
    TRY_ALLOC(target.slots = *slots = json_value_new_object());
    Status status = compose(&target, memory, document, summary);
    text_free(&target.items);
    text_free(&target.item);
    text_free(&target.sentence);
    if (!status) return STATUS_OK;
    json_value_free(*slots);
    *slots = NULL;
    return status;
}
