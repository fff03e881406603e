/* The text of a configuration, made ready for libconfig: included files are put in place and integers that need 64 bits get
 * the suffix that libconfig 1.5 wants (it silently wraps them without), while every line keeps the file and number
 * it came from. Private to io/config.c. */
#ifndef IO_CONFIG_SOURCE_H
#define IO_CONFIG_SOURCE_H

#include "io/buffer.h"

typedef struct ConfigSourceLine {
    int file; /* index in files */
    int number;
} ConfigSourceLine;

typedef struct ConfigSource {
    Text text;
    char **files;
    int file_count;
    ConfigSourceLine *lines; /* of line i + 1 of text */
    int line_count, line_capacity;
} ConfigSource;

/* Appends bytes, which came from the file (or option) called name. Errors: "NAME:LINE: ...": a missing included file, an
 * integer beyond 64 bits, a NUL byte. */
Status config_source_add(ConfigSource *source, const char *name, const char *bytes, size_t length);
/* Where a line of the text (1-based) came from; *number is 0 outside the text. */
const char *config_source_line(const ConfigSource *source, int line, int *number);
void config_source_free(ConfigSource *source);

#endif
