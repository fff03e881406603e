/* The narrative of session memory, written by a model: greedy, from the prompt that training used (io/memory_prompt.h). */
#ifndef TRAINER_NARRATIVE_H
#define TRAINER_NARRATIVE_H

#include "trainer/text_model.h"

typedef struct NarrativeSettings {
    int64_t max_length;     /* most prompt tokens; less where the model's window is smaller */
    int64_t max_new_tokens; /* at least 1 */
} NarrativeSettings;

typedef struct Narrative {
    Text text;          /* without white space at its ends; data never NULL */
    bool shortened;     /* the prompt did not fit as it was */
    bool unfinished;    /* ended by max_new_tokens, not by the model */
    int64_t new_tokens; /* with the EOS */
    double seconds;     /* of generation, waiting for the device included */
} Narrative;

/* record: {previous_memory, recent_turns, active_document}. The template is data.prompt_template of the model's options, else
 * the built-in one. STATUS_INVALID where the model has no tokenizer or the template does not fit its window. */
Status narrative_write(TextModel *model, const JsonValue *record, NarrativeSettings settings, Narrative *out);
void narrative_free(Narrative *narrative);

#endif
