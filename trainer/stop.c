#include "trainer/stop.h"

#include <signal.h>

#define RELAYED (-1)

/* The number of the signal, or RELAYED. */
static volatile sig_atomic_t asked;

static void note(int signal_number) { asked = signal_number; }

void stop_listen(void) {
    static const int signals[] = {SIGTERM, SIGUSR1, SIGINT};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; ++i) {
        struct sigaction action = {.sa_handler = note, .sa_flags = SA_RESTART}, before;
        if (signals[i] == SIGINT) action.sa_flags |= (int)SA_RESETHAND; /* who presses twice does not want to wait */
        sigemptyset(&action.sa_mask);
        if (sigaction(signals[i], NULL, &before) == 0 && before.sa_handler == SIG_IGN) continue; /* nohup, a shell's & */
        sigaction(signals[i], &action, NULL);
    }
}

bool stop_requested(void) { return asked != 0; }

void stop_relay(void) {
    if (!asked) asked = RELAYED;
}

static const char *reason(void) {
    switch (asked) {
    case SIGTERM: return "SIGTERM";
    case SIGUSR1: return "SIGUSR1";
    case SIGINT: return "SIGINT";
    default: return "another rank was asked";
    }
}

Status stop_check(const char *when) {
    if (!asked) return STATUS_OK;
    return status_new(STATUS_STOPPED, __FILE__, __LINE__, "stopped on request (%s) %s", reason(), when);
}

Status stop_agree(Communicator *communicator, const char *when) { return communicator_agree(communicator, stop_check(when)); }
