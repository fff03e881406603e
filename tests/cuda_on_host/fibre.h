/* Fibres: threads of execution that give way to each other by name, on stacks of their own with a guard page below.
 *
 * On x86-64 a switch saves the six registers that a function call preserves; elsewhere swapcontext does it. The address
 * sanitizer is told of every switch. */
#ifndef TESTS_CUDA_ON_HOST_FIBRE_H
#define TESTS_CUDA_ON_HOST_FIBRE_H

#include <stddef.h>

#ifndef __x86_64__
#include <ucontext.h>
#endif

#ifdef __SANITIZE_ADDRESS__
#define HOST_ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HOST_ADDRESS_SANITIZER 1
#endif
#endif

struct Fibre {
#ifdef __x86_64__
    void *stack_pointer;
#else
    ucontext_t state;
#endif
    char *stack; /* NULL: the one that the process came with */
    void *fake_stack;
    bool started;
};

/* The fibre will run `entry`, which never returns, when it is next switched to. The first call maps its stack; later calls
 * forget what ran on it. Without memory the process is aborted: this is a test. */
void fibre_prepare(Fibre *fibre, void (*entry)());
void fibre_switch(Fibre *from, Fibre *to);

#endif
