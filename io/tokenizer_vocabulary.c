/* Tokens by name and by id, and the merges.
 *
 * tokenizer.json writes tokens in the byte alphabet of GPT-2 (Radford et al. 2019, encoder.py): a printable byte stands for
 * itself as a Latin-1 character, the 68 others for U+0100, U+0101, ... in order. */
#include "io/tokenizer_internal.h"

#include "io/utf8.h"

#include <stdlib.h>
#include <string.h>

static uint32_t alphabet_code_point(unsigned char byte) {
    if (byte < 0x21) return 0x100u + byte;
    if (byte < 0x7F) return byte;
    if (byte < 0xA1) return 0x100u + 0x21 + (byte - 0x7Fu);
    return byte == 0xAD ? 0x143 : byte;
}

Status vocabulary_append_alphabet(Text *out, const char *bytes, size_t length) {
    TRY(text_reserve(out, out->length + 2 * length));
    for (size_t i = 0; i < length; ++i)
        out->length += utf8_encode(alphabet_code_point((unsigned char)bytes[i]), (unsigned char *)out->data + out->length);
    out->data[out->length] = 0;
    return STATUS_OK;
}

/* Appends the bytes that name stands for. A name with a character outside the alphabet stands for itself, as Hugging Face's
 * ByteLevel decoder has it. */
static Status append_decoded(Text *out, const char *name, size_t length, const int16_t byte_of[TOKENIZER_ALPHABET]) {
    size_t start = out->length, size;
    TRY(text_reserve(out, start + length));
    for (size_t i = 0; i < length; i += size) {
        uint32_t code_point = utf8_decode((const unsigned char *)name + i, &size);
        if (code_point >= TOKENIZER_ALPHABET || byte_of[code_point] < 0) {
            out->length = start;
            return text_append(out, name, length);
        }
        out->data[out->length++] = (char)byte_of[code_point];
    }
    return STATUS_OK;
}

static uint64_t hash_name(const char *name, size_t length) {
    uint64_t hash = 0xCBF29CE484222325u; /* FNV-1a */
    for (size_t i = 0; i < length; ++i) hash = (hash ^ (unsigned char)name[i]) * 0x100000001B3u;
    return hash ^ hash >> 29;
}

Status vocabulary_reserve(Vocabulary *v, int64_t ids) {
    if (!v->slots) {
        memset(v->byte_of, -1, sizeof v->byte_of);
        for (int byte = 0; byte < 256; ++byte) v->byte_of[alphabet_code_point((unsigned char)byte)] = (int16_t)byte;
    }
    uint64_t slots = 1024;
    while (slots < (uint64_t)ids * 2) slots *= 2;
    if (v->slots && v->slot_mask + 1 >= slots) return STATUS_OK;
    int32_t *grown;
    TRY_ALLOC(grown = malloc(slots * sizeof *grown));
    memset(grown, -1, slots * sizeof *grown);
    for (int32_t id = 0; id < v->size; ++id) {
        const TokenEntry *entry = &v->entries[id];
        if (entry->name == SIZE_MAX) continue;
        uint64_t i = hash_name(v->names.data + entry->name, entry->name_length) & (slots - 1);
        while (grown[i] >= 0) i = (i + 1) & (slots - 1);
        grown[i] = id;
    }
    free(v->slots);
    v->slots = grown;
    v->slot_mask = slots - 1;
    return STATUS_OK;
}

static Status grow_entries(Vocabulary *v, int32_t size) {
    if (size > v->capacity) {
        int32_t capacity = v->capacity * 2 > size ? v->capacity * 2 : size;
        TokenEntry *entries;
        TRY_ALLOC(entries = realloc(v->entries, (size_t)capacity * sizeof *entries));
        v->entries = entries;
        v->capacity = capacity;
    }
    for (; v->size < size; ++v->size) v->entries[v->size] = (TokenEntry){.name = SIZE_MAX};
    return STATUS_OK;
}

static uint64_t find_slot(const Vocabulary *v, const char *name, size_t length) {
    uint64_t i = hash_name(name, length) & v->slot_mask;
    for (; v->slots[i] >= 0; i = (i + 1) & v->slot_mask) {
        const TokenEntry *entry = &v->entries[v->slots[i]];
        if (entry->name_length == length && !memcmp(v->names.data + entry->name, name, length)) break;
    }
    return i;
}

Status vocabulary_add(Vocabulary *v, const char *name, size_t length, int64_t id, bool literal) {
    if (id < 0 || id >= TOKENIZER_MAX_IDS)
        INVALID("token \"%s\": id %lld is not in 0..%d", name, (long long)id, TOKENIZER_MAX_IDS - 1);
    if (length > UINT32_MAX) INVALID("token with id %lld is too long", (long long)id);
    TRY(vocabulary_reserve(v, v->count + 1));
    TRY(grow_entries(v, (int32_t)id + 1));
    TokenEntry *entry = &v->entries[id];
    if (entry->name != SIZE_MAX)
        INVALID("tokens \"%.*s\" and \"%s\" have the same id %lld", (int)entry->name_length, v->names.data + entry->name, name,
                (long long)id);
    uint64_t slot = find_slot(v, name, length);
    if (v->slots[slot] >= 0) INVALID("token \"%s\" has two ids, %d and %lld", name, v->slots[slot], (long long)id);
    size_t name_offset = v->names.length, bytes_offset = v->bytes.length;
    TRY(text_append(&v->names, name, length));
    TRY(literal ? text_append(&v->bytes, name, length) : append_decoded(&v->bytes, name, length, v->byte_of));
    *entry = (TokenEntry){name_offset, bytes_offset, (uint32_t)length, (uint32_t)(v->bytes.length - bytes_offset)};
    v->slots[slot] = (int32_t)id;
    ++v->count;
    return STATUS_OK;
}

int32_t vocabulary_find(const Vocabulary *v, const char *name, size_t length) {
    return v->slots ? v->slots[find_slot(v, name, length)] : -1;
}

Status vocabulary_find_bytes(Vocabulary *v) {
    for (int byte = 0; byte < 256; ++byte) {
        unsigned char name[4];
        size_t length = utf8_encode(alphabet_code_point((unsigned char)byte), name);
        v->byte_ids[byte] = vocabulary_find(v, (char *)name, length);
        if (v->byte_ids[byte] < 0) INVALID("the vocabulary has no token for byte 0x%02X (\"%.*s\")", byte, (int)length, name);
    }
    return STATUS_OK;
}

void vocabulary_free(Vocabulary *v) {
    text_free(&v->names);
    text_free(&v->bytes);
    free(v->entries);
    free(v->slots);
    *v = (Vocabulary){0};
}

Status merge_table_add(MergeTable *table, const Vocabulary *v, const char *left, size_t left_length, const char *right,
                       size_t right_length, Text *joined) {
    text_clear(joined);
    TRY(text_append(joined, left, left_length));
    TRY(text_append(joined, right, right_length));
    MergeRule rule = {vocabulary_find(v, left, left_length), vocabulary_find(v, right, right_length),
                      vocabulary_find(v, joined->data, joined->length)};
    if (rule.left < 0) INVALID("merge %zu: token \"%.*s\" is not in the vocabulary", table->count, (int)left_length, left);
    if (rule.right < 0) INVALID("merge %zu: token \"%.*s\" is not in the vocabulary", table->count, (int)right_length, right);
    if (rule.merged < 0) INVALID("merge %zu: its result \"%s\" is not in the vocabulary", table->count, joined->data);
    if (table->count == TOKENIZER_MAX_IDS) INVALID("more than %d merges", TOKENIZER_MAX_IDS);
    if (table->count == table->capacity) {
        size_t capacity = table->capacity ? table->capacity * 2 : 4096;
        MergeRule *rules;
        TRY_ALLOC(rules = realloc(table->rules, capacity * sizeof *rules));
        table->rules = rules;
        table->capacity = capacity;
    }
    table->rules[table->count++] = rule;
    return STATUS_OK;
}

Status merge_table_add_line(MergeTable *table, const Vocabulary *v, const char *line, size_t length, Text *joined) {
    const char *space = memchr(line, ' ', length);
    size_t left = space ? (size_t)(space - line) : 0;
    if (!space || !left || left + 1 == length || memchr(space + 1, ' ', length - left - 1))
        INVALID("merge %zu: \"%.*s\" is not two tokens with a space between", table->count, (int)length, line);
    return merge_table_add(table, v, line, left, space + 1, length - left - 1, joined);
}

Status merge_table_index(MergeTable *table) {
    int bits = 4;
    while ((size_t)1 << bits < table->count * 2) ++bits;
    size_t slots = (size_t)1 << bits;
    TRY_ALLOC(table->slots = malloc(slots * sizeof *table->slots));
    memset(table->slots, 0xFF, slots * sizeof *table->slots);
    table->shift = 64 - bits;
    table->mask = slots - 1;
    for (size_t rank = 0; rank < table->count; ++rank) {
        const MergeRule *rule = &table->rules[rank];
        uint64_t key = (uint64_t)rule->left << TOKENIZER_ID_BITS | (uint64_t)rule->right;
        uint64_t i = key * 0x9E3779B97F4A7C15u >> table->shift;
        while (table->slots[i] != UINT64_MAX && table->slots[i] >> TOKENIZER_ID_BITS != key) i = (i + 1) & table->mask;
        table->slots[i] = key << TOKENIZER_ID_BITS | rank; /* of a pair listed twice the last rank holds, as in Hugging Face */
    }
    return STATUS_OK;
}

void merge_table_free(MergeTable *table) {
    free(table->rules);
    free(table->slots);
    *table = (MergeTable){0};
}
