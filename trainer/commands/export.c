/* adamem export: what training made, in the formats that other programs read. */
#include "trainer/commands/commands.h"

#include "io/log.h"
#include "model/parameters.h"
#include "trainer/commands/command_line.h"
#include "trainer/export.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "Usage: adamem export --checkpoint PATH --format peft|merged --output DIR [--model DIR] [--dtype DTYPE]\n"
    "\n"
    "  --checkpoint PATH  checkpoint-STEP.h5, best.h5, final.h5 ...\n"
    "  --format FORMAT    peft: adapter directory for PEFT and vLLM; merged: Hugging Face directory with the adapter added in\n"
    "                     fp32 and trained base tensors; gguf comes with a later version\n"
    "  --output DIR       must not exist yet\n"
    "  --model DIR        the base model, if it is no longer where the checkpoint says\n"
    "  --dtype DTYPE      float32, bfloat16 or float16 (default: peft float32, merged the run's model.dtype)\n"
    "  --help             this text\n";

typedef struct Arguments {
    const char *checkpoint, *format, *output, *model, *dtype;
    bool help;
} Arguments;

static Status parse_arguments(int argc, char **argv, Arguments *out) {
    static const struct option options[] = {{"checkpoint", required_argument, NULL, 'c'},
                                            {"format", required_argument, NULL, 'f'},
                                            {"output", required_argument, NULL, 'o'},
                                            {"model", required_argument, NULL, 'm'},
                                            {"dtype", required_argument, NULL, 'd'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    *out = (Arguments){0};
    optind = 0;
    for (int character = 0;;) {
        TRY(command_line_next(argc, argv, options, &character));
        if (character == -1) break;
        switch (character) {
        case 'c': out->checkpoint = optarg; break;
        case 'f': out->format = optarg; break;
        case 'o': out->output = optarg; break;
        case 'm': out->model = optarg; break;
        case 'd': out->dtype = optarg; break;
        default: out->help = true; return STATUS_OK;
        }
    }
    if (!out->checkpoint) INVALID("export: --checkpoint PATH is missing");
    if (!out->output) INVALID("export: --output DIR is missing");
    if (!out->format) INVALID("export: --format peft|merged is missing");
    if (strcmp(out->format, "gguf") == 0) INVALID("export: --format gguf comes with a later version");
    if (strcmp(out->format, "peft") != 0 && strcmp(out->format, "merged") != 0)
        INVALID("export: --format %s is not peft or merged", out->format);
    if (out->dtype && !safetensors_dtype_of(out->dtype))
        INVALID("export: --dtype %s is not float32, bfloat16 or float16", out->dtype);
    return STATUS_OK;
}

static Status run(const Arguments *arguments) {
    Checkpoint *checkpoint;
    Options options;
    TRY(checkpoint_open(arguments->checkpoint, &checkpoint));
    Status status = options_load_text(arguments->checkpoint, checkpoint_meta(checkpoint)->config, &options);
    if (status) {
        checkpoint_close(checkpoint);
        return status;
    }
    if (arguments->model) status = options_set_model(&options, arguments->model);
    bool peft = strcmp(arguments->format, "peft") == 0;
    const char *dtype = arguments->dtype ? arguments->dtype : peft ? "float32" : options.model.dtype;
    if (!status && peft)
        status = export_peft(checkpoint, &options, dtype, arguments->output);
    else if (!status)
        status = export_merged(checkpoint, &options, dtype, arguments->output);
    if (!status)
        log_info("%s: %s of step %lld, %s", arguments->output, arguments->format, (long long)checkpoint_meta(checkpoint)->step,
                 dtype);
    options_free(&options);
    checkpoint_close(checkpoint);
    return status;
}

Status command_export(int argc, char **argv) {
    Arguments arguments;
    TRY(parse_arguments(argc, argv, &arguments));
    if (!arguments.help) return run(&arguments);
    fputs(usage, stdout);
    return STATUS_OK;
}
