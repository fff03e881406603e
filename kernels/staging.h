/* Staging: large uploads from memory that is not page-locked, such as mapped files, at the speed of the slower of page cache and
 * bus.
 *
 * Two page-locked buffers take turns: threads copy a piece into one while the device fetches the other, so that the reading of
 * the file, the copy and the bus overlap. On a device that needs no copies it hands everything to device_upload. */
#ifndef KERNELS_STAGING_H
#define KERNELS_STAGING_H

#include "kernels/device.h"

typedef struct Staging Staging;

Status staging_create(Device *device, Staging **out);
/* Waits for what is under way; accepts NULL. */
void staging_destroy(Staging *staging);
/* The source has been read when it returns; the destination is complete for work that is issued after staging_finish. */
Status staging_upload(Staging *staging, void *destination, const void *source, size_t bytes);
/* Lets the device's work wait for all uploads so far. */
Status staging_finish(Staging *staging);

#endif
