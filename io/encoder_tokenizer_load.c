/* Reading an encoder's tokenizer from its directory. The files of the Python tokenizers (vocab.txt; vocab.json and
 * merges.txt) stand above tokenizer.json, as the bert-score package has it. */
#include "io/encoder_tokenizer_internal.h"

#include "io/file.h"

#include <stdlib.h>
#include <string.h>

/* \p{L} and the rest as in GPT-2 (Radford et al. 2019, encoder.py). */
static const char gpt2_pattern[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* Longer limits are Transformers' way of saying that there is none. */
static const double no_limit = 1e9;

typedef struct Loader {
    EncoderTokenizer *tokenizer;
    const char *directory;
    Vocabulary *vocabulary;
    Text path, joined;       /* the file being read; scratch of the merges */
    JsonValue *config, *map; /* tokenizer_config.json, special_tokens_map.json; NULL: not there */
    JsonValue *root;         /* tokenizer.json; NULL: not used */
} Loader;

static Status set_path(Loader *loader, const char *name) {
    text_clear(&loader->path);
    return text_append_format(&loader->path, "%s/%s", loader->directory, name);
}

static Status has_file(Loader *loader, const char *name, bool *out) {
    *out = false;
    TRY(set_path(loader, name));
    *out = file_exists(loader->path.data);
    return STATUS_OK;
}

/* reals: integers beyond 64 bits are allowed. */
static Status read_json(Loader *loader, const char *name, bool reals, JsonValue **out) {
    Text text = {0};
    TRY(set_path(loader, name));
    Status status = file_read(loader->path.data, &text);
    if (!status) {
        status = (reals ? json_value_parse_reals : json_value_parse)(text.data, text.length, out);
        if (status) status_prefix(status, "%s", loader->path.data);
    }
    text_free(&text);
    return status;
}

static Status read_optional(Loader *loader, const char *name, JsonValue **out) {
    bool found;
    TRY(has_file(loader, name, &found));
    return found ? read_json(loader, name, true, out) : STATUS_OK;
}

static bool is_set(const JsonValue *v) { return v && !json_value_is_null(v); }
static bool boolean_of(const JsonValue *v, const char *key, bool fallback) {
    const JsonValue *member = json_value_get(v, key);
    return json_value_is_boolean(member) ? json_value_boolean(member) : fallback;
}
static const char *type_of(const JsonValue *v) {
    const char *type = json_value_string(json_value_get(v, "type"), NULL);
    return type ? type : is_set(v) ? "without a type" : "null";
}

static Status expect_type(const JsonValue *root, const char *role, const char *type) {
    const char *found = type_of(json_value_get(root, role));
    if (strcmp(found, type)) INVALID("%s %s is not supported here, only %s is", role, found, type);
    return STATUS_OK;
}

/* --- WordPiece --- */

static Status load_vocab_txt(Loader *loader) {
    Text text = {0};
    Status status;
    TRY_GOTO(file_read(loader->path.data, &text), done);
    int64_t id = 0;
    for (size_t start = 0, end; start < text.length; start = end + 1, ++id) {
        const char *stop = memchr(text.data + start, '\n', text.length - start);
        end = stop ? (size_t)(stop - text.data) : text.length;
        size_t length = end - start - (end > start && text.data[end - 1] == '\r');
        text.data[start + length] = 0; /* vocabulary_add names the token */
        TRY_GOTO(status_prefix(vocabulary_add(loader->vocabulary, text.data + start, length, id, true), "%s:%lld",
                               loader->path.data, (long long)id + 1),
                 done);
    }
done:
    text_free(&text);
    return status;
}

static Status set_continuation(WordPiece *model, const char *mark) {
    TRY_ALLOC(model->continuation = strdup(mark));
    return STATUS_OK;
}

static Status load_wordpiece_text(Loader *loader) {
    WordPiece *model = &loader->tokenizer->wordpiece;
    TRY(load_vocab_txt(loader));
    TRY(set_path(loader, "tokenizer_config.json"));
    if (!boolean_of(loader->config, "do_basic_tokenize", true))
        INVALID("%s: do_basic_tokenize false is not supported", loader->path.data);
    model->clean = model->compose = true;
    model->most_characters = 100;
    model->lower_case = boolean_of(loader->config, "do_lower_case", true);
    model->strip_accents = boolean_of(loader->config, "strip_accents", model->lower_case);
    model->split_chinese = boolean_of(loader->config, "tokenize_chinese_chars", true);
    return set_continuation(model, "##");
}

static Status load_wordpiece_json(Loader *loader) {
    WordPiece *model = &loader->tokenizer->wordpiece;
    const JsonValue *json = json_value_get(loader->root, "model"), *vocab = json_value_get(json, "vocab");
    const JsonValue *normalizer = json_value_get(loader->root, "normalizer");
    if (is_set(json_value_get(json, "type"))) TRY(expect_type(loader->root, "model", "WordPiece"));
    TRY(expect_type(loader->root, "normalizer", "BertNormalizer"));
    TRY(expect_type(loader->root, "pre_tokenizer", "BertPreTokenizer"));
    if (!json_value_is_object(vocab)) INVALID("model.vocab must be an object, found %s", json_value_type_name(vocab));
    for (JsonMember member = {0}; json_value_next_member(vocab, &member);) {
        if (!json_value_is_integer(member.value)) INVALID("token \"%s\": its id is not an integer", member.key);
        TRY(vocabulary_add(loader->vocabulary, member.key, strlen(member.key), json_value_integer(member.value), true));
    }
    int64_t most = json_value_integer(json_value_get(json, "max_input_chars_per_word"));
    const char *mark = json_value_string(json_value_get(json, "continuing_subword_prefix"), NULL);
    model->most_characters = most > 0 ? (size_t)most : 100;
    model->clean = boolean_of(normalizer, "clean_text", true);
    model->lower_case = boolean_of(normalizer, "lowercase", true);
    model->strip_accents = boolean_of(normalizer, "strip_accents", model->lower_case);
    model->split_chinese = boolean_of(normalizer, "handle_chinese_chars", true);
    return set_continuation(model, mark ? mark : "##");
}

/* --- byte level --- */

static Status load_byte_level_text(Loader *loader) {
    Tokenizer *bytes = &loader->tokenizer->bytes;
    JsonValue *vocab = NULL;
    Text text = {0};
    Status status;
    TRY_GOTO(read_json(loader, "vocab.json", false, &vocab), done);
    TRY_GOTO(status_prefix(tokenizer_set_vocabulary(bytes, vocab), "%s", loader->path.data), done);
    TRY_GOTO(set_path(loader, "merges.txt"), done);
    TRY_GOTO(file_read(loader->path.data, &text), done);
    TRY_GOTO(status_prefix(tokenizer_set_merges_text(bytes, &text, &loader->joined), "%s", loader->path.data), done);
done:
    json_value_free(vocab);
    text_free(&text);
    return status;
}

static Status load_byte_level_json(Loader *loader) {
    Tokenizer *bytes = &loader->tokenizer->bytes;
    const JsonValue *json = json_value_get(loader->root, "model"), *cut = json_value_get(loader->root, "pre_tokenizer");
    if (is_set(json_value_get(json, "type"))) TRY(expect_type(loader->root, "model", "BPE"));
    if (is_set(json_value_get(loader->root, "normalizer")))
        INVALID("normalizer %s is not supported here", type_of(json_value_get(loader->root, "normalizer")));
    TRY(expect_type(loader->root, "pre_tokenizer", "ByteLevel"));
    if (!boolean_of(cut, "use_regex", true)) INVALID("pre_tokenizer ByteLevel: use_regex false is not supported");
    if (boolean_of(json, "ignore_merges", false)) INVALID("model.ignore_merges is not supported here");
    loader->tokenizer->prefix_space = boolean_of(cut, "add_prefix_space", false);
    TRY(tokenizer_set_vocabulary(bytes, json_value_get(json, "vocab")));
    return tokenizer_set_merges(bytes, json_value_get(json, "merges"), &loader->joined);
}

/* --- special tokens --- */

/* The content of a special token: a string, or a record with content. */
static const char *content_of(const JsonValue *v) {
    const char *name = json_value_string(v, NULL);
    return name ? name : json_value_string(json_value_get(v, "content"), NULL);
}

static const char *special_name(const Loader *loader, const char *key, const char *fallback) {
    const char *name = content_of(json_value_get(loader->config, key));
    if (!name) name = content_of(json_value_get(loader->map, key));
    return name ? name : fallback;
}

static bool is_added(const AddedTokens *set, int32_t id) {
    for (size_t i = 0; i < set->count; ++i)
        if (set->tokens[i].id == id) return true;
    return false;
}

static Status add_token(Loader *loader, const char *content, int64_t id, bool strip_left) {
    EncoderTokenizer *t = loader->tokenizer;
    size_t length = strlen(content);
    if (!length) INVALID("added token with id %lld is empty", (long long)id);
    int32_t known = vocabulary_find(loader->vocabulary, content, length);
    if (known < 0)
        TRY(vocabulary_add(loader->vocabulary, content, length, id, true));
    else if (known != id)
        INVALID("added token \"%s\" has id %lld, but %d in the vocabulary", content, (long long)id, known);
    if (is_added(&t->added, (int32_t)id)) return STATUS_OK;
    if (strip_left && t->strip_left_id >= 0) INVALID("added token \"%s\": a second one with lstrip is not supported", content);
    if (strip_left) t->strip_left_id = (int32_t)id;
    return added_tokens_add(&t->added, content, length, (int32_t)id, true, false);
}

static Status add_record(Loader *loader, const JsonValue *record, int64_t id) {
    static const char *const refused[] = {"rstrip", "single_word"};
    const char *content;
    size_t length;
    TRY(json_value_get_string(record, "content", &content, &length));
    for (int i = 0; i < 2; ++i)
        if (boolean_of(record, refused[i], false)) INVALID("added token \"%s\": %s is not supported", content, refused[i]);
    if (!boolean_of(record, "special", true)) INVALID("added token \"%s\": one that is not special is not supported", content);
    return add_token(loader, content, id, boolean_of(record, "lstrip", false));
}

/* added_tokens.json of older directories: {"content": id}. */
static Status add_plain(Loader *loader) {
    JsonValue *added = NULL;
    Status status = read_optional(loader, "added_tokens.json", &added);
    for (JsonMember member = {0}; !status && json_value_next_member(added, &member);)
        status = status_prefix(add_token(loader, member.key, (int64_t)json_value_number(member.value), false), "%s",
                               loader->path.data);
    json_value_free(added);
    return status;
}

static Status add_records(Loader *loader) {
    const JsonValue *decoder = json_value_get(loader->config, "added_tokens_decoder");
    if (!decoder && !loader->root) return add_plain(loader);
    TRY(set_path(loader, decoder ? "tokenizer_config.json" : "tokenizer.json"));
    for (JsonMember member = {0}; json_value_next_member(decoder, &member);) {
        char *end;
        long long id = strtoll(member.key, &end, 10);
        if (!*member.key || *end) INVALID("%s: added_tokens_decoder: \"%s\" is not an id", loader->path.data, member.key);
        TRY(status_prefix(add_record(loader, member.value, id), "%s: added_tokens_decoder", loader->path.data));
    }
    const JsonValue *list = decoder ? NULL : json_value_get(loader->root, "added_tokens");
    for (size_t i = 0; i < json_value_size(list); ++i) {
        int64_t id;
        Status status = json_value_get_integer(json_value_at(list, i), "id", &id);
        if (!status) status = add_record(loader, json_value_at(list, i), id);
        if (status) return status_prefix(status, "%s: added_tokens[%zu]", loader->path.data, i);
    }
    return STATUS_OK;
}

static Status find_special(Loader *loader, const char *key, const char *fallback, int32_t *out) {
    const char *name = special_name(loader, key, fallback);
    *out = vocabulary_find(loader->vocabulary, name, strlen(name));
    if (*out < 0) INVALID("%s: %s \"%s\" is not in the vocabulary", loader->directory, key, name);
    return STATUS_OK;
}

/* Special tokens are recognised in the text even where no file lists them as added. */
static Status add_special(Loader *loader) {
    EncoderTokenizer *t = loader->tokenizer;
    static const char *const keys[] = {"cls_token",  "sep_token", "unk_token", "pad_token",
                                       "mask_token", "bos_token", "eos_token"};
    static const char *const names[][7] = {{"[CLS]", "[SEP]", "[UNK]", "[PAD]", "[MASK]", NULL, NULL},
                                           {"<s>", "</s>", "<unk>", "<pad>", "<mask>", "<s>", "</s>"}};
    for (int i = 0; i < 7; ++i) {
        const char *name = special_name(loader, keys[i], names[t->kind][i]);
        int32_t id = name ? vocabulary_find(loader->vocabulary, name, strlen(name)) : -1;
        bool is_mask = i == 4 && t->kind == ENCODER_TOKENIZER_BYTE_LEVEL; /* <mask> stands for a word and its space */
        if (id >= 0) TRY(add_token(loader, name, id, is_mask && !is_added(&t->added, id)));
    }
    TRY(find_special(loader, "cls_token", names[t->kind][0], &t->first_id));
    TRY(find_special(loader, "sep_token", names[t->kind][1], &t->last_id));
    if (t->kind == ENCODER_TOKENIZER_WORDPIECE) TRY(find_special(loader, "unk_token", "[UNK]", &t->wordpiece.unknown_id));
    added_tokens_index(&t->added);
    return STATUS_OK;
}

/* --- the whole --- */

static Status check_class(Loader *loader) {
    static const char *const wordpiece[] = {"BertTokenizer", "BertTokenizerFast", NULL};
    static const char *const byte_level[] = {"RobertaTokenizer",
                                             "RobertaTokenizerFast",
                                             "BartTokenizer",
                                             "BartTokenizerFast",
                                             "GPT2Tokenizer",
                                             "GPT2TokenizerFast",
                                             NULL};
    static const char *const any[] = {"PreTrainedTokenizerFast", "TokenizersBackend", NULL};
    const char *const *lists[] = {loader->tokenizer->kind == ENCODER_TOKENIZER_WORDPIECE ? wordpiece : byte_level, any};
    const char *class_ = json_value_string(json_value_get(loader->config, "tokenizer_class"), NULL);
    if (!class_) return STATUS_OK;
    for (int i = 0; i < 2; ++i)
        for (int n = 0; lists[i][n]; ++n)
            if (!strcmp(lists[i][n], class_)) return STATUS_OK;
    INVALID("%s/tokenizer_config.json: tokenizer_class %s is not supported for this model", loader->directory, class_);
}

static Status load_json(Loader *loader) {
    bool wordpiece = loader->tokenizer->kind == ENCODER_TOKENIZER_WORDPIECE, found;
    TRY(has_file(loader, "tokenizer.json", &found));
    if (!found)
        INVALID("%s: holds neither %s nor tokenizer.json", loader->directory,
                wordpiece ? "vocab.txt" : "vocab.json and merges.txt");
    TRY(read_json(loader, "tokenizer.json", false, &loader->root));
    return status_prefix(wordpiece ? load_wordpiece_json(loader) : load_byte_level_json(loader), "%s", loader->path.data);
}

static Status load(Loader *loader) {
    EncoderTokenizer *t = loader->tokenizer;
    bool wordpiece = t->kind == ENCODER_TOKENIZER_WORDPIECE, found, merges = true;
    TRY(read_optional(loader, "tokenizer_config.json", &loader->config));
    TRY(read_optional(loader, "special_tokens_map.json", &loader->map));
    TRY(check_class(loader));
    if (!wordpiece) {
        TRY(splitter_init(&t->bytes.splitter, gpt2_pattern));
        TRY(splitter_scratch_init(&t->bytes.splitter, &t->bytes_scratch.splitter));
        TRY(bpe_scratch_init(&t->bytes_scratch.bpe));
        TRY(has_file(loader, "merges.txt", &merges));
    }
    TRY(has_file(loader, wordpiece ? "vocab.txt" : "vocab.json", &found));
    if (found && merges)
        TRY(wordpiece ? load_wordpiece_text(loader) : load_byte_level_text(loader));
    else
        TRY(load_json(loader));
    TRY(add_records(loader));
    TRY(add_special(loader));
    t->prefix_space = boolean_of(loader->config, "add_prefix_space", t->prefix_space);
    double limit = json_value_number(json_value_get(loader->config, "model_max_length"));
    t->max_length = limit >= 2 && limit < no_limit ? (int64_t)limit : INT64_MAX;
    return STATUS_OK;
}

Status encoder_tokenizer_load(const char *directory, EncoderTokenizerKind kind, EncoderTokenizer **out) {
    Loader loader = {.directory = directory};
    EncoderTokenizer *t;
    TRY_ALLOC(t = calloc(1, sizeof *t));
    t->kind = kind;
    t->strip_left_id = -1;
    normalizer_init(&t->bytes.normalizer);
    loader.tokenizer = t;
    loader.vocabulary = kind == ENCODER_TOKENIZER_WORDPIECE ? &t->wordpiece.vocabulary : &t->bytes.vocabulary;
    Status status = load(&loader);
    if (status)
        encoder_tokenizer_free(t);
    else
        *out = t;
    json_value_free(loader.config);
    json_value_free(loader.map);
    json_value_free(loader.root);
    text_free(&loader.path);
    text_free(&loader.joined);
    return status;
}
