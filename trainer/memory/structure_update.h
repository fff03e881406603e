/* The structured memory after a session, computed by rules: the same memory, turns and document always give the same bytes.
 *
 * Turns are taken in order; each is cut into sentences (io/words.h). Cue phrases are those of MemoryRules; a sentence has a cue
 * when its folded form holds one. Then
 *   goal                  the last user sentence with a goal cue; else as before
 *   current_focus         the last user turn that has a word, squeezed, its first focus_words words
 *   unresolved_questions  user sentences that end in a question mark. A question leaves when a later assistant turn answers it:
 *                         when at least question_overlap of its different words stand in that turn's sentences that are no
 *                         questions (stop words do not count), or, for the last question of the user turn just before, when
 *                         that turn begins with a yes-no answer
 *   decisions             sentences of either role with a decision cue, no questions
 *   open_problems         sentences of either role with a problem cue and none of a solution, no questions and no decisions. A
 *                         problem leaves when a later sentence with a solution cue has at least problem_overlap of its words
 *   established_facts     the active document first, as `NAME: its first sentence`; sentences that are none of the above (goal
 *                         included) with a fact cue of their role
 * Entries are cut to item_words words, are not repeated, and at most MEMORY_LIST_ITEMS stay, the newest. Entries of the
 * previous memory take part as if they had just been said. */
#ifndef TRAINER_STRUCTURE_UPDATE_H
#define TRAINER_STRUCTURE_UPDATE_H

#include "trainer/memory/memory_rules.h"
#include "trainer/memory/session_memory.h"

/* memory: changed in place, the narrative left alone; after an error its content is unspecified. turns: array of {"role":
 * "user" or "assistant", "text"}; document: {"file_name", "doc_summary"}, {} or null, or NULL. STATUS_INVALID names what is
 * wrong. */
Status structure_update(const MemoryRules *rules, const JsonValue *turns, const JsonValue *document, SessionMemory *memory);

#endif
