/* Slot recall: how many of the things that a memory summary must state (goal, focus, questions, decisions, problems) a
 * prediction states.
 *
 * An item is found when at least `threshold` of its different words stand in the prediction, letter case and punctuation
 * aside; stop words do not count unless the item has no others (folded_overlap of io/words.h). */
#ifndef TRAINER_METRICS_SLOT_RECALL_H
#define TRAINER_METRICS_SLOT_RECALL_H

#include "io/json_value.h"

#define SLOT_RECALL_THRESHOLD 0.5
enum { SLOT_RECALL_KINDS = 32 };

typedef struct SlotRecall {
    struct SlotRecallKind {
        char name[64];
        int64_t found, total;
    } kinds[SLOT_RECALL_KINDS]; /* [count] in order of appearance */
    int count;
    int64_t found, total; /* over all kinds */
} SlotRecall;

/* Adds one prediction. slots: an object; every member is a string or an array of strings, empty ones count nothing. stop_words:
 * folded form. STATUS_INVALID names the member. Zero-initialise *sum before the first. */
Status slot_recall_add(SlotRecall *sum, const JsonValue *slots, const char *prediction, size_t length, const char *stop_words,
                       double threshold);
/* A new object {"recall", "items", "slots": {NAME: {"recall", "items"}}}; a recall without items is null. */
Status slot_recall_json(const SlotRecall *sum, JsonValue **out);

#endif
