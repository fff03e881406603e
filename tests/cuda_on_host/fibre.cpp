#include "tests/cuda_on_host/fibre.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#ifdef HOST_ADDRESS_SANITIZER
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

static const size_t stack_bytes = (size_t)256 << 10, guard_bytes = 4096;

static void map_stack(Fibre *fibre) {
    void *memory =
        mmap(NULL, stack_bytes + guard_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, guard_bytes, PROT_NONE) != 0) {
        perror("the stack of an emulated thread");
        abort();
    }
    fibre->stack = (char *)memory + guard_bytes;
}

#ifdef HOST_ADDRESS_SANITIZER
/* Bounds of the stack that the process came with, learnt at the first switch away from it. */
static const void *process_stack;
static size_t process_stack_bytes;

static void before_switch(Fibre *from, Fibre *to) {
    if (to->stack)
        __sanitizer_start_switch_fiber(&from->fake_stack, to->stack, stack_bytes);
    else
        __sanitizer_start_switch_fiber(&from->fake_stack, process_stack, process_stack_bytes);
}

static void after_switch(Fibre *now) {
    const void *stack;
    size_t bytes;
    __sanitizer_finish_switch_fiber(now->fake_stack, &stack, &bytes);
    if (now->stack && !now->started) process_stack = stack, process_stack_bytes = bytes;
}
#else
static void before_switch(Fibre *, Fibre *) {}
static void after_switch(Fibre *) {}
#endif

static Fibre *starting; /* the fibre being switched to, read where it begins */
static void (*starting_entry)();

static void begin() {
    after_switch(starting);
    starting->started = true;
    starting_entry();
    abort();
}

#ifdef __x86_64__
/* switch_stacks(where to save the stack pointer, the stack pointer to go on with) */
extern "C" void switch_stacks(void **save, void *load) __attribute__((visibility("hidden")));
asm(R"(
    .text
    .globl switch_stacks
    .hidden switch_stacks
    .type switch_stacks, @function
switch_stacks:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size switch_stacks, . - switch_stacks
)");

/* What switch_stacks finds: six registers, where to return to, and the (absent) caller of that. */
static void set_start(Fibre *fibre) {
    void **top = (void **)(fibre->stack + stack_bytes);
    for (int i = 1; i <= 8; ++i) top[-i] = NULL;
    top[-2] = (void *)begin;
    fibre->stack_pointer = top - 8;
}

static void change(Fibre *from, Fibre *to) { switch_stacks(&from->stack_pointer, to->stack_pointer); }
#else
static void set_start(Fibre *fibre) {
    getcontext(&fibre->state);
    fibre->state.uc_stack.ss_sp = fibre->stack;
    fibre->state.uc_stack.ss_size = stack_bytes;
    fibre->state.uc_link = NULL;
    makecontext(&fibre->state, begin, 0);
}

static void change(Fibre *from, Fibre *to) { swapcontext(&from->state, &to->state); }
#endif

void fibre_prepare(Fibre *fibre, void (*entry)()) {
    if (!fibre->stack) map_stack(fibre);
#ifdef HOST_ADDRESS_SANITIZER
    __asan_unpoison_memory_region(fibre->stack, stack_bytes); /* of a thread that was abandoned half-way */
#endif
    set_start(fibre);
    fibre->fake_stack = NULL;
    fibre->started = false;
    starting_entry = entry;
}

void fibre_switch(Fibre *from, Fibre *to) {
    starting = to;
    before_switch(from, to);
    change(from, to);
    after_switch(from);
}
