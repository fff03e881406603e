#include "trainer/metrics/slot_recall.h"

#include "io/words.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct Predicted {
    const char *stop_words;
    double threshold;
    Text text, item; /* folded */
} Predicted;

static Status find_kind(SlotRecall *sum, const char *name, struct SlotRecallKind **out) {
    for (int i = 0; i < sum->count; ++i)
        if (!strcmp(sum->kinds[i].name, name)) return *out = &sum->kinds[i], STATUS_OK;
    if (sum->count == SLOT_RECALL_KINDS) INVALID("slots: more than %d kinds", SLOT_RECALL_KINDS);
    *out = &sum->kinds[sum->count];
    if (strlen(name) >= sizeof(*out)->name) INVALID("slots: the name \"%.20s...\" is too long", name);
    **out = (struct SlotRecallKind){.found = 0};
    strcpy((*out)->name, name);
    ++sum->count;
    return STATUS_OK;
}

static Status add_item(SlotRecall *sum, struct SlotRecallKind *kind, Predicted *p, const JsonValue *item) {
    size_t length;
    const char *text = json_value_string(item, &length);
    if (!text) INVALID("slots: \"%s\" must be a string or an array of strings, found %s", kind->name, json_value_type_name(item));
    TRY(words_fold(text, length, &p->item));
    if (!p->item.length) return STATUS_OK;
    bool found = folded_overlap(p->item.data, p->text.data, p->stop_words) >= p->threshold;
    ++kind->total, ++sum->total;
    kind->found += found, sum->found += found;
    return STATUS_OK;
}

static Status add_slots(SlotRecall *sum, const JsonValue *slots, Predicted *p) {
    if (!json_value_is_object(slots)) INVALID("\"slots\" must be an object, found %s", json_value_type_name(slots));
    for (JsonMember m = {0}; json_value_next_member(slots, &m);) {
        struct SlotRecallKind *kind;
        TRY(find_kind(sum, m.key, &kind));
        if (!json_value_is_array(m.value)) TRY(add_item(sum, kind, p, m.value));
        for (size_t i = 0; json_value_is_array(m.value) && i < json_value_size(m.value); ++i)
            TRY(add_item(sum, kind, p, json_value_at(m.value, i)));
    }
    return STATUS_OK;
}

Status slot_recall_add(SlotRecall *sum, const JsonValue *slots, const char *prediction, size_t length, const char *stop_words,
                       double threshold) {
    Predicted predicted = {.stop_words = stop_words, .threshold = threshold};
    Status status = words_fold(prediction, length, &predicted.text);
    if (!status) status = add_slots(sum, slots, &predicted);
    text_free(&predicted.text);
    text_free(&predicted.item);
    return status;
}

static Status set_recall(JsonValue *object, int64_t found, int64_t total) {
    TRY(json_value_set_number(object, "recall", total ? (double)found / (double)total : NAN));
    return json_value_set_integer(object, "items", total);
}

static Status fill(JsonValue *object, const SlotRecall *sum) {
    TRY(set_recall(object, sum->found, sum->total));
    JsonValue *slots = json_value_new_object();
    TRY(json_value_set(object, "slots", slots));
    for (int i = 0; i < sum->count; ++i) {
        JsonValue *kind = json_value_new_object();
        TRY(json_value_set(slots, sum->kinds[i].name, kind));
        TRY(set_recall(kind, sum->kinds[i].found, sum->kinds[i].total));
    }
    return STATUS_OK;
}

Status slot_recall_json(const SlotRecall *sum, JsonValue **out) {
    TRY_ALLOC(*out = json_value_new_object());
    Status status = fill(*out, sum);
    if (!status) return STATUS_OK;
    json_value_free(*out);
    *out = NULL;
    return status;
}
