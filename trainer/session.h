/* What a process holds while it trains or evaluates: device, memory, the network with its weights. */
#ifndef TRAINER_SESSION_H
#define TRAINER_SESSION_H

#include "dist/communicator.h"
#include "dist/launch.h"
#include "io/tokenizer.h"
#include "model/batch.h"
#include "model/decoder.h"
#include "trainer/network.h"
#include "trainer/options.h"
#include "trainer/plan.h"
#include "trainer/watchdog.h"

typedef struct Session {
    const Options *options;
    const Launch *launch;
    Communicator *communicator;        /* MPI */
    Communicator *device_communicator; /* NCCL, for gradients; NULL: they pass through host memory. Owned */
    Device *device;
    Arena *arena;
    Tape *tape;
    ModelConfig config;
    PlanMemory plan;      /* what training will take; zero in evaluation */
    WorstBatch worst;     /* what it was planned for */
    int64_t free_at_open; /* bytes that the GPU had free before this session took any */
    unsigned recompute;   /* Recompute flags that the plan chose */
    Safetensors *weights; /* the mapped base model */
    char base_fingerprint[65];
    Parameters *parameters;
    Network network; /* what these two are parts of */
    Decoder *decoder;
    Adamem *adamem; /* NULL: the objective has no latent memory */
    DeviceBatch batch;
    Watchdog *watchdog;        /* NULL: none. Borrowed */
    double started;            /* clock_seconds() of the process, for goodput */
    const char *run_directory; /* that keeps the matmul plans; NULL: none does */
    Text matmul_table;         /* of rank 0 (matmul_table.h) */
    bool matmul_table_is_new;  /* the run directory does not have it yet */
} Session;

/* worst.sequences 0: unknown. On a GPU the arena is then most of what is free; on a CPU it is address space anyway. */
typedef struct SessionSettings {
    WorstBatch worst;          /* largest micro-batch of the run */
    bool training;             /* allocate gradients and moments */
    bool random_weights;       /* no weights file is read: bench */
    const char *run_directory; /* read by rank 0 for what it keeps, NULL: none; must outlive the session */
    Watchdog *watchdog;        /* borrowed; NULL: none */
    double started;            /* clock_seconds() of the process */
    const char *adapter;       /* PEFT directory to load, NULL: lora.init_from, or a new adapter */
} SessionSettings;

/* Collective. options, launch and communicator must outlive the session. After an error nothing is held. */
Status session_open(const Options *options, const Launch *launch, Communicator *communicator, SessionSettings settings,
                    Session *out);
void session_close(Session *session);
/* To the error of a GPU that has no memory left it adds what was planned and what to lower; others pass unchanged. */
Status session_explain_memory(const Session *session, Status status);
/* Bytes that this session holds on the GPU, and of the arena what was used of it at most: to be held against plan.total. Wrong by
 * what other processes took or gave back since. 0 on a CPU. */
Status session_device_peak(const Session *session, int64_t *bytes);
/* The tokenizer of the model directory; *out NULL (no error) when optional and the directory has none. */
Status session_tokenizer(const Options *options, bool optional, Tokenizer **out);
/* auto: CUDA where a GPU is present, else the CPU, and says why. */
Status session_device(const Options *options, const Launch *launch, Device **out);

#endif
