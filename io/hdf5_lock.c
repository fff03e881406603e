#include "io/hdf5_lock.h"

#include <hdf5.h>
#include <pthread.h>
#include <stdint.h>

/* Tickets, because a plain mutex that is unlocked and locked again at once goes to the same thread. */
static struct {
    pthread_mutex_t mutex;
    pthread_cond_t served;
    uint64_t next, serving;
} library = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0};

void hdf5_lock(void) {
    pthread_mutex_lock(&library.mutex);
    uint64_t ticket = library.next++;
    while (library.serving != ticket) pthread_cond_wait(&library.served, &library.mutex);
    pthread_mutex_unlock(&library.mutex);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

void hdf5_unlock(void) {
    pthread_mutex_lock(&library.mutex);
    ++library.serving;
    pthread_cond_broadcast(&library.served);
    pthread_mutex_unlock(&library.mutex);
}

void hdf5_yield(void) {
    hdf5_unlock();
    hdf5_lock();
}
