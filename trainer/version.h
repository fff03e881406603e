/* The program's version, from the build. */
#ifndef TRAINER_VERSION_H
#define TRAINER_VERSION_H

const char *version_text(void);
/* Compiler and backends: "GCC 12.2.0, CUDA yes". */
const char *version_build(void);

#endif
