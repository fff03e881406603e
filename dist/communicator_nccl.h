/* NCCL behind CommunicatorOps. For communicator_device.c, which decides where it can serve. */
#ifndef DIST_COMMUNICATOR_NCCL_H
#define DIST_COMMUNICATOR_NCCL_H

#include "dist/communicator_device.h"

typedef struct NcclLibrary NcclLibrary;

/* Loads NCCL at run time: a program that was built with it starts, and says so, on machines without it. STATUS_FAILED: why
 * it cannot be used. */
Status nccl_library_open(const char *name, NcclLibrary **out);
void nccl_library_version(const NcclLibrary *library, char *text, size_t bytes); /* "NCCL 2.28.9" */
void nccl_library_close(NcclLibrary *library);                                   /* accepts NULL */

/* Collective. Takes ownership of library, also when it fails. Errors as in communicator_device_create. */
Status communicator_nccl_create(Communicator *control, Device *device, NcclLibrary *library,
                                const DeviceCommunicatorSettings *settings, Communicator **out);

#endif
