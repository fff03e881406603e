#include "io/tokenizer_cut.h"

#include "io/chat_template.h"
#include "io/file.h"
#include "io/json_value.h"
#include "io/tokenizer_internal.h"

#include <stdlib.h>
#include <string.h>

static const char *const added[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
enum { ADDED = sizeof added / sizeof *added };

typedef struct Cut {
    const Tokenizer *source;
    int32_t *old_ids, *new_ids; /* by new id; by old id, -1 = left out */
    int32_t count, wanted;
    size_t merges; /* of the first this many, those whose tokens are all in */
} Cut;

static void keep(Cut *cut, int32_t old_id) {
    if (cut->new_ids[old_id] >= 0) return;
    cut->new_ids[old_id] = cut->count;
    cut->old_ids[cut->count++] = old_id;
}

static int compare_ids(const void *a, const void *b) {
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

static bool parts_kept(const Cut *cut, const MergeRule *rule) {
    return cut->new_ids[rule->left] >= 0 && cut->new_ids[rule->right] >= 0;
}

static Status choose(Cut *cut) {
    const Tokenizer *t = cut->source;
    int32_t bytes[256];
    memcpy(bytes, t->vocabulary.byte_ids, sizeof bytes);
    qsort(bytes, 256, sizeof *bytes, compare_ids);
    for (int i = 0; i < 256; ++i) keep(cut, bytes[i]);
    for (; cut->merges < t->merges.count && cut->count < cut->wanted; ++cut->merges) {
        const MergeRule *rule = &t->merges.rules[cut->merges];
        if (parts_kept(cut, rule)) keep(cut, rule->merged);
    }
    if (cut->count < cut->wanted)
        INVALID("only %d tokens can be made of bytes and merges, %d are wanted", cut->count, cut->wanted);
    return STATUS_OK;
}

static Status append_json_string(Text *out, const char *bytes, size_t length) {
    JsonValue *string;
    TRY_ALLOC(string = json_value_new_string(bytes, length));
    Status status = json_value_write(string, 0, out);
    json_value_free(string);
    return status;
}

static Status append_name(const Cut *cut, int32_t old_id, Text *out) {
    const TokenEntry *entry = &cut->source->vocabulary.entries[old_id];
    return text_append(out, cut->source->vocabulary.names.data + entry->name, entry->name_length);
}

/* The flags all three share, as Qwen2.5 has them. */
static const char added_flags[] =
    "\"lstrip\": false, \"normalized\": false, \"rstrip\": false, \"single_word\": false, \"special\": true";

static Status write_added_tokens(const Cut *cut, Text *out) {
    TRY(text_append_string(out, "  \"added_tokens\": [\n"));
    for (int i = 0; i < ADDED; ++i)
        TRY(text_append_format(out, "    {\"id\": %d, \"content\": \"%s\", %s}%s\n", cut->count + i, added[i], added_flags,
                               i + 1 < ADDED ? "," : ""));
    return text_append_string(out, "  ],\n");
}

static Status write_components(const Cut *cut, Text *out) {
    static const char byte_level[] =
        "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": false, \"use_regex\": false}";
    const char *pattern = cut->source->splitter.pattern;
    TRY(text_append_format(out, "  \"normalizer\": %s,\n", cut->source->normalize ? "{\"type\": \"NFC\"}" : "null"));
    TRY(text_append_string(out, "  \"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [\n    {\"type\": \"Split\", "
                                "\"pattern\": {\"Regex\": "));
    TRY(append_json_string(out, pattern, strlen(pattern)));
    TRY(text_append_format(out, "}, \"behavior\": \"Isolated\", \"invert\": false},\n    %s]},\n", byte_level));
    return text_append_format(out, "  \"post_processor\": %s,\n  \"decoder\": %s,\n", byte_level, byte_level);
}

static Status write_vocabulary(const Cut *cut, Text *name, Text *out) {
    TRY(text_append_string(out, "    \"vocab\": {"));
    for (int32_t id = 0; id < cut->count; ++id) {
        text_clear(name);
        TRY(append_name(cut, cut->old_ids[id], name));
        if (id) TRY(text_append_string(out, ","));
        TRY(append_json_string(out, name->data, name->length));
        TRY(text_append_format(out, ":%d", id));
    }
    return text_append_string(out, "},\n");
}

static Status write_merges(const Cut *cut, Text *name, Text *out) {
    TRY(text_append_string(out, "    \"merges\": ["));
    const char *separator = "";
    for (size_t rank = 0; rank < cut->merges; ++rank) {
        const MergeRule *rule = &cut->source->merges.rules[rank];
        if (!parts_kept(cut, rule)) continue;
        text_clear(name);
        TRY(append_name(cut, rule->left, name));
        TRY(text_append_string(name, " "));
        TRY(append_name(cut, rule->right, name));
        TRY(text_append_string(out, separator));
        TRY(append_json_string(out, name->data, name->length));
        separator = ",";
    }
    return text_append_string(out, "]}\n");
}

static Status write_model(const Cut *cut, Text *out) {
    TRY(text_append_format(out,
                           "  \"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": null, "
                           "\"continuing_subword_prefix\": \"\", \"end_of_word_suffix\": \"\", \"fuse_unk\": false, "
                           "\"byte_fallback\": false, \"ignore_merges\": %s,\n",
                           cut->source->ignore_merges ? "true" : "false"));
    Text name = {0};
    Status status = write_vocabulary(cut, &name, out);
    if (!status) status = write_merges(cut, &name, out);
    text_free(&name);
    return status;
}

static Status write_tokenizer(const Cut *cut, Text *out) {
    TRY(text_append_string(out, "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n"));
    TRY(write_added_tokens(cut, out));
    TRY(write_components(cut, out));
    TRY(write_model(cut, out));
    return text_append_string(out, "}\n");
}

static Status write_config(const Cut *cut, Text *out) {
    TRY(text_append_string(out,
                           "{\n  \"add_bos_token\": false,\n  \"add_prefix_space\": false,\n  \"added_tokens_decoder\": {\n"));
    for (int i = 0; i < ADDED; ++i)
        TRY(text_append_format(out, "    \"%d\": {\"content\": \"%s\", %s}%s\n", cut->count + i, added[i], added_flags,
                               i + 1 < ADDED ? "," : ""));
    TRY(text_append_string(out,
                           "  },\n  \"additional_special_tokens\": [\"<|im_start|>\", \"<|im_end|>\"],\n  \"bos_token\": null,\n"
                           "  \"chat_template\": "));
    TRY(append_json_string(out, chat_template_qwen2_5, strlen(chat_template_qwen2_5)));
    return text_append_string(out, ",\n  \"clean_up_tokenization_spaces\": false,\n  \"eos_token\": \"<|im_end|>\",\n"
                                   "  \"errors\": \"replace\",\n  \"model_max_length\": 131072,\n"
                                   "  \"pad_token\": \"<|endoftext|>\",\n  \"split_special_tokens\": false,\n"
                                   "  \"tokenizer_class\": \"Qwen2Tokenizer\",\n  \"unk_token\": null\n}\n");
}

static Status write_file(const Cut *cut, Status (*write)(const Cut *, Text *), const char *directory, const char *name) {
    Text text = {0};
    char *path = NULL;
    Status status;
    TRY_GOTO(write(cut, &text), done);
    TRY_GOTO(path_join(directory, name, &path), done);
    TRY_GOTO(file_write_atomic(path, text.data, text.length), done);
done:
    free(path);
    text_free(&text);
    return status;
}

Status tokenizer_cut(const char *source_dir, int32_t vocabulary_size, const char *output_dir) {
    if (vocabulary_size < 256) INVALID("a byte-level tokenizer needs at least 256 entries, not %d", vocabulary_size);
    Tokenizer *source;
    TRY(tokenizer_load(source_dir, &source));
    size_t old_size = (size_t)tokenizer_size(source);
    Cut cut = {.source = source, .wanted = vocabulary_size};
    cut.old_ids = calloc((size_t)vocabulary_size, sizeof *cut.old_ids);
    cut.new_ids = malloc(old_size * sizeof *cut.new_ids);
    Status status = cut.old_ids && cut.new_ids ? STATUS_OK : FAILURE("out of memory: token ids");
    if (!status) {
        memset(cut.new_ids, -1, old_size * sizeof *cut.new_ids);
        status = choose(&cut);
    }
    if (status) status_prefix(status, "%s", source_dir);
    if (!status) status = file_make_directories(output_dir);
    if (!status) status = write_file(&cut, write_tokenizer, output_dir, "tokenizer.json");
    if (!status) status = write_file(&cut, write_config, output_dir, "tokenizer_config.json");
    free(cut.old_ids);
    free(cut.new_ids);
    tokenizer_free(source);
    return status;
}
