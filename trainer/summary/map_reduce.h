/* Map-reduce over one document, without a model: which prompts to ask, what to do with the replies.
 *
 * Level 1 cuts the document into chunks and asks for a summary of each (map). Where there is more than one, the summaries are
 * joined and cut into chunks in turn (reduce), level after level, until one chunk holds them all: its summary is the document's.
 *
 * It ends: the text of a level has at most 3/4 of the tokens of the one before. Where summaries are longer together, all that
 * exceed a common length are cut to it, the largest that satisfies this, and counted. */
#ifndef TRAINER_MAP_REDUCE_H
#define TRAINER_MAP_REDUCE_H

#include "trainer/summary/summary_prompts.h"

typedef struct MapReduceSettings {
    SummaryPrompts *prompts;
    const StringList *abbreviations; /* io/words.h */
    int64_t chunk_tokens, overlap_tokens;
    bool keep_intermediate;
} MapReduceSettings;

/* A summary as the model wrote it; borrowed. */
typedef struct SummaryReply {
    const char *text; /* without white space at its ends */
    size_t length;
    int64_t new_tokens;
    const char *finish; /* static: why it ended there */
} SummaryReply;

typedef struct MapReduce {
    Text id;          /* as JSON */
    int64_t line;     /* in the input file, for messages; the caller's */
    TokenText input;  /* of this level */
    ChunkList chunks; /* of this level */
    int64_t level;    /* of `chunks`, from 1; 0: the document has no text */
    Text replies;     /* of this level, one behind the other */
    int64_t *ends;    /* [chunks.count] of the replies */
    int64_t answered; /* replies so far */
    bool done;        /* summary is there */
    Text summary;     /* data never NULL */
    int64_t document_tokens, document_chunks, summary_tokens;
    int64_t cut;        /* summaries that were cut so that a level shrinks */
    const char *finish; /* of the summary; "empty" for a document without text */
    Text intermediate;  /* JSON lines of all levels */
} MapReduce;

/* Level 1. A document of nothing but white space is done at once, with an empty summary. After an error nothing is held. */
Status map_reduce_start(const MapReduceSettings *settings, const char *id, const char *text, size_t length, MapReduce *out);
void map_reduce_free(MapReduce *document);
/* Appends the ids of the prompt for a chunk of this level. */
Status map_reduce_prompt(const MapReduceSettings *settings, const MapReduce *document, int64_t chunk, TokenList *ids);
/* The reply for chunk number document->answered. The last one of a level begins the next or ends the document. */
Status map_reduce_reply(const MapReduceSettings *settings, MapReduce *document, const SummaryReply *reply);

#endif
