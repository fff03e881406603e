/* adamem train: from a configuration to a trained adapter. */
#include "trainer/commands/commands.h"

#include "io/checkpoint.h"
#include "io/file.h"
#include "io/log.h"
#include "trainer/commands/command_line.h"
#include "trainer/dry_run.h"
#include "trainer/clock.h"
#include "trainer/loop.h"
#include "trainer/ranks.h"
#include "trainer/stop.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "Usage: adamem train --config FILE [--set KEY=VALUE]... [--resume auto|none|PATH]\n"
    "       adamem train --config FILE --dry-run [--world-size N] [--device-memory GB] [--at S,S,...]\n"
    "\n"
    "Trains what lora.target_modules and model.trainable name. Start it with mpirun or srun for several ranks.\n"
    "\n"
    "  --config FILE       configuration (adamem train --help-keys lists the keys)\n"
    "  --set KEY=VALUE     overrides a key\n"
    "  --resume WHAT       auto (default): from the newest valid checkpoint in run.output_dir; none: start anew, the old\n"
    "                      files are moved aside; PATH: from this checkpoint\n"
    "  --dry-run           print the plan as JSON: counts, steps, learning rates, memory; needs only the model's config.json\n"
    "  --world-size N      plan for N ranks (default 1)\n"
    "  --device-memory GB  plan for a device with this much memory: a GPU, unless run.backend is \"cpu\"\n"
    "  --at S,S,...        print the learning rate after these numbers of updates\n"
    "  --help              this text\n";

typedef struct Arguments {
    ConfigArguments config;
    const char *resume;
    bool dry_run, help, help_keys;
    DryRunSettings plan;
} Arguments;

static Status parse_memory(const char *text, int64_t *bytes) {
    char *end;
    double gigabytes = strtod(text, &end);
    if (end == text || *end || !(gigabytes > 0 && gigabytes < 1e6))
        INVALID("train: --device-memory %s: expected gigabytes", text);
    *bytes = (int64_t)(gigabytes * 1e9);
    return STATUS_OK;
}

static Status parse_arguments(int argc, char **argv, Arguments *out) {
    static const struct option options[] = {CONFIG_ARGUMENT_OPTIONS,
                                            {"resume", required_argument, NULL, 'r'},
                                            {"dry-run", no_argument, NULL, 'd'},
                                            {"world-size", required_argument, NULL, 'w'},
                                            {"device-memory", required_argument, NULL, 'm'},
                                            {"at", required_argument, NULL, 'a'},
                                            {"help", no_argument, NULL, 'h'},
                                            {"help-keys", no_argument, NULL, 'k'},
                                            {0}};
    long long world = 1;
    const char *planning = NULL;
    *out = (Arguments){.resume = "auto"};
    TRY(config_arguments_create(argc, &out->config));
    optind = 0;
    for (int character = 0;;) {
        TRY(command_line_next(argc, argv, options, &character));
        if (character == -1) break;
        switch (character) {
        case 'c': out->config.config = optarg; break;
        case 's': out->config.sets[out->config.count++] = optarg; break;
        case 'r': out->resume = optarg; break;
        case 'd': out->dry_run = true; break;
        case 'w':
            TRY(command_line_count("train", "world-size", optarg, 1 << 20, &world));
            if (world < 1) INVALID("train: --world-size must be at least 1");
            planning = "--world-size";
            break;
        case 'm':
            TRY(parse_memory(optarg, &out->plan.device_memory));
            planning = "--device-memory";
            break;
        case 'a':
            out->plan.at = optarg;
            planning = "--at";
            break;
        case 'k': out->help_keys = true; return STATUS_OK;
        default: out->help = true; return STATUS_OK;
        }
    }
    out->plan.world_size = (int)world;
    if (!out->config.config && out->config.count == 0) INVALID("train: --config FILE is missing");
    if (planning && !out->dry_run) INVALID("train: %s belongs to --dry-run", planning);
    return STATUS_OK;
}

static Status print_keys(void) {
    Text text = {0};
    Status status = options_help(&text);
    if (!status) fputs(text.data, stdout);
    text_free(&text);
    return status;
}

/* Called when all input has been found good: a run that is there already must not suffer from a mistyped command. */
static Status prepare_output(const Options *options, const char *resume, int rank) {
    if (rank != 0) return STATUS_OK;
    TRY(file_make_directories(options->run.output_dir));
    return strcmp(resume, "none") == 0 ? checkpoint_set_aside(options->run.output_dir) : STATUS_OK;
}

static void announce(const Session *session, const Plan *plan) {
    const Parameters *p = session->parameters;
    log_info("training %lld of %lld parameters (%.4f %%), %lld samples, global batch %lld on %d ranks, %lld steps",
             (long long)p->trainable_elements, (long long)(p->trainable_elements + p->frozen_elements),
             100.0 * (double)p->trainable_elements / (double)(p->trainable_elements + p->frozen_elements),
             (long long)plan->samples, (long long)plan->global_batch_size, (int)plan->world_size, (long long)plan->total_steps);
}

/* Behind every section of the start: nothing is half-done there. */
static Status stop_before_training(const Ranks *ranks) {
    return stop_agree(ranks->communicator, "before training began; nothing is lost: start again to go on");
}

/* Collective. */
static Status train_watched(const Options *options, const Ranks *ranks, const char *resume, double started, Watchdog *watchdog) {
    TrainingData data = {0};
    Session session = {0};
    Plan plan;
    Status status;
    ModelConfig model; /* a model that cannot be trained is told before hours of tokenizing for it */
    TRY_GOTO(ranks_agree(ranks, model_config_read(options->model.path, &model)), done);
    watchdog_section(watchdog, "data preparation", WATCHDOG_DATA);
    TRY_GOTO(training_data_open(options, ranks->communicator, &data), done);
    TRY_GOTO(stop_before_training(ranks), done);
    TRY_GOTO(ranks_agree(ranks, plan_compute(options, data.view.mixture.samples, ranks->launch.world, &plan)), done);
    SessionSettings settings = {.worst = training_data_worst(options, &data),
                                .training = true,
                                .run_directory = options->run.output_dir,
                                .watchdog = watchdog,
                                .started = started};
    watchdog_section(watchdog, "loading the model", WATCHDOG_LONG);
    TRY_GOTO(session_open(options, &ranks->launch, ranks->communicator, settings, &session), done);
    announce(&session, &plan);
    TRY_GOTO(ranks_agree(ranks, prepare_output(options, resume, ranks->launch.rank)), done);
    TRY_GOTO(watchdog_open_board(watchdog, ranks->communicator, options->run.output_dir), done);
    TRY_GOTO(stop_before_training(ranks), done);
    TRY_GOTO(train_run(&session, &data, &plan, resume), done);
done:
    session_close(&session);
    training_data_close(&data);
    return status;
}

/* Collective. */
static Status train(const Options *options, const Ranks *ranks, const char *resume, double started) {
    Watchdog *watchdog;
    TRY(ranks_agree(ranks, watchdog_start(options->run.watchdog_seconds, &ranks->launch, ranks->communicator, &watchdog)));
    Status status = train_watched(options, ranks, resume, started, watchdog);
    watchdog_stop(watchdog);
    return status;
}

static Status load_options(const Arguments *arguments, Options *options) {
    TRY(options_load(arguments->config.config, arguments->config.sets, arguments->config.count, options));
    Status status = options_validate(options, arguments->dry_run ? OPTIONS_FOR_PLAN : OPTIONS_FOR_TRAIN);
    if (status) options_free(options);
    return status;
}

static Status run(const Arguments *arguments) {
    Ranks ranks;
    Options options;
    double started = clock_seconds();
    if (!arguments->dry_run) stop_listen();
    TRY(ranks_start(&ranks));
    Status status = ranks_agree(&ranks, load_options(arguments, &options));
    if (!status) {
        status = arguments->dry_run ? ranks_agree(&ranks, dry_run_print(&options, &ranks, &arguments->plan))
                                    : train(&options, &ranks, arguments->resume, started);
        options_free(&options);
    }
    ranks_end(&ranks);
    return status;
}

Status command_train(int argc, char **argv) {
    Arguments arguments;
    Status status = status_mark_shared(parse_arguments(argc, argv, &arguments)); /* all ranks were given the same */
    if (!status && arguments.help)
        fputs(usage, stdout);
    else if (!status && arguments.help_keys)
        status = print_keys();
    else if (!status)
        status = run(&arguments);
    config_arguments_free(&arguments.config);
    return status;
}
