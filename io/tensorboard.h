/* TensorBoard event files, scalars only: TFRecord framing (length, its CRC, bytes, their CRC) around Event protocol buffers
 * (tensorflow/core/util/event.proto), encoded by hand because five fields do not justify a library. */
#ifndef IO_TENSORBOARD_H
#define IO_TENSORBOARD_H

#include "io/status.h"

#include <stdint.h>

/* CRC-32C (Castagnoli, reflected polynomial 0x82F63B78); "123456789" gives 0xE3069283. */
uint32_t crc32c(const void *bytes, size_t length);

typedef struct TensorBoard TensorBoard;

/* Creates DIRECTORY/events.out.tfevents.TIME.HOST.PID (with ".N" when that exists) and writes the file version and a session
 * start at first_step, which makes TensorBoard drop what earlier files say about that step and later ones. */
Status tensorboard_open(const char *directory, int64_t first_step, TensorBoard **out);
typedef struct TensorBoardScalar {
    const char *tag;
    double value;
} TensorBoardScalar;
/* One event with all scalars of a step. */
Status tensorboard_write(TensorBoard *board, int64_t step, const TensorBoardScalar *scalars, size_t count);
void tensorboard_close(TensorBoard *board); /* accepts NULL */

#endif
