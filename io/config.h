/* Configuration files (libconfig) driven by one option table.
 *
 * The table is the single source of parsing, types, ranges, defaults, help text and the echo of the effective
 * configuration. Values land in a plain struct at the option's offset; strings and lists are owned by that struct and
 * freed by config_free. Errors are STATUS_INVALID and name file and line (or "--set key"), the key, what was expected,
 * and for an unknown key the nearest valid one. Integers are accepted where reals are meant; both 32- and 64-bit integers. */
#ifndef IO_CONFIG_H
#define IO_CONFIG_H

#include "io/buffer.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum ConfigType {
    CONFIG_BOOLEAN,     /* bool */
    CONFIG_INTEGER,     /* int64_t */
    CONFIG_REAL,        /* double */
    CONFIG_STRING,      /* char * (never NULL) */
    CONFIG_CHOICE,      /* char *, one of choices */
    CONFIG_STRING_LIST, /* ConfigStringList, written [ "a", "b" ] */
    CONFIG_RECORD_LIST, /* ConfigRecordList, written ( { ... }, { ... } ) */
} ConfigType;

typedef struct ConfigStringList {
    char **items;
    int64_t count;
} ConfigStringList;

typedef struct ConfigRecordList {
    void *items; /* count records of record->size bytes */
    int64_t count;
} ConfigRecordList;

typedef struct ConfigOption ConfigOption;
typedef struct ConfigTable {
    const ConfigOption *options;
    size_t count;
    size_t size; /* bytes of the struct that the offsets refer to */
} ConfigTable;

struct ConfigOption {
    const char *key; /* "training.learning_rate"; inside a record just "path" */
    ConfigType type;
    size_t offset;             /* of the value in the target struct */
    const char *default_value; /* as written in a file: "5e-5", "true", "adamw", "[ ]"; NULL: required (records only) */
    double minimum, maximum;   /* inclusive, for numbers */
    const char *choices;       /* "none|full|auto", for CONFIG_CHOICE */
    const char *later;         /* choices (or "*" = the key itself) that a later version brings: an error that says so */
    const ConfigTable *record; /* for CONFIG_RECORD_LIST */
    const char *help;
};

/* Fills target (zeroed by the callee) from defaults, then path (NULL: none), then sets ("key=value", value in libconfig
 * syntax or a bare word for strings). After an error target holds nothing to free. */
Status config_load(const ConfigTable *table, const char *path, const char *const *sets, size_t set_count, void *target);
void config_free(const ConfigTable *table, void *target);
/* Parses text that config_write wrote (the echo in a checkpoint). name: for messages. */
Status config_load_text(const ConfigTable *table, const char *name, const char *text, void *target);
/* Appends every option with its effective value as a configuration file that config_load reads back to the same values. */
Status config_write(const ConfigTable *table, const void *target, Text *out);
/* Appends one line per option: key, type or choices, default, help. */
Status config_help(const ConfigTable *table, Text *out);

#endif
