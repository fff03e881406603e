/* Logits of every position, for comparisons with other implementations. */
#ifndef TRAINER_LOGITS_H
#define TRAINER_LOGITS_H

#include "trainer/session.h"

/* Writes path: safetensors with F32 tensors logits.N [T,V], N = number of the record over all data.validation sources,
 * from 0. Every record must be one sample. Memory: one record's logits at a time. */
Status logits_write(Session *session, const Tokenizer *tokenizer, const char *path);

#endif
