#include "io/hdf5_lock.h"

#include <hdf5.h>
#include <pthread.h>

static pthread_mutex_t library = PTHREAD_MUTEX_INITIALIZER;

void hdf5_lock(void) {
    pthread_mutex_lock(&library);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

void hdf5_unlock(void) { pthread_mutex_unlock(&library); }
