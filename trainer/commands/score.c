/* adamem score: predictions against references, or two systems against each other. */
#include "trainer/commands/commands.h"

#include "io/log.h"
#include "trainer/commands/command_line.h"
#include "trainer/metrics/score_input.h"
#include "trainer/metrics/table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "Usage: adamem score --metrics LIST --input FILE [--stemmer] [--per-example] [--model DIR]\n"
    "       adamem score --metrics LIST --input FILE --baseline FILE [--seed N] [--resamples N] ...\n"
    "\n"
    "Reads JSON lines {\"prediction\": \"...\", \"references\": [\"...\", ...]} and prints one JSON object: metric ->\n"
    "{\"precision\", \"recall\", \"fmeasure\"} or a number. Fractions, not percent; the mean over all lines; of several "
    "references\n"
    "the one with the best fmeasure, for each metric by itself.\n"
    "\n"
    "  --metrics LIST   names with commas between:\n"
    "                     rouge1 rouge2 rougeL rougeLsum  as Google's rouge_score; rougeLsum cuts at line ends\n"
    "                     f1 em                           as SQuAD 2.0's script; the reference \"\" means: no answer\n"
    "                     bertscore                       needs --model: an encoder of the bert, roberta or bart family\n"
    "                     fact_retention                  reads \"constraints\": [...]: the fraction found in the prediction\n"
    "                     trr                             reads \"original\", \"compressed\": 1 - tokens / tokens; needs "
    "--model\n"
    "                     words characters tokens         of the prediction, mean and median; tokens needs --model\n"
    "  --input FILE     JSON lines, plain, .gz or .zst; - is standard input (default -)\n"
    "  --stemmer        ROUGE compares stems (Porter, as NLTK)\n"
    "  --model DIR      model directory: the tokenizer for trr and tokens, the encoder for bertscore\n"
    "  --layer N        bertscore: run N layers of the encoder (default: the bert-score package's choice for the model)\n"
    "  --idf            bertscore: weigh tokens by inverse document frequency among the references\n"
    "  --rescale FILE   bertscore: rescale with this baseline (CSV: LAYER,P,R,F and one line per layer)\n"
    "  --per-example    adds \"per_example\": one object per line, with its line number and \"id\"\n"
    "  --baseline FILE  the same examples with another system's predictions: prints both (base: this file; adapter: --input),\n"
    "                   their difference with a 95 % interval, and the p-value of a paired bootstrap; a table for people goes\n"
    "                   to standard error\n"
    "  --seed N         of the bootstrap (default 42)\n"
    "  --resamples N    of the bootstrap (default 10000)\n"
    "  --help           this text\n"
    "\n"
    "Empty predictions are scored like any other and counted on standard error. OMP_NUM_THREADS sets the number of threads.\n";

typedef struct Options {
    MetricList metrics;
    const char *input, *baseline, *model;
    bool stemmer, per_example, help;
    BertscoreSettings bertscore;
    BootstrapSettings bootstrap;
} Options;

static Status check_options(const Options *options, const char *metrics, bool bootstrap_set) {
    if (!metrics) INVALID("score: --metrics LIST is missing");
    if (options->baseline && options->per_example) INVALID("score: --baseline and --per-example exclude each other");
    if (options->baseline && !strcmp(options->baseline, "-") && !strcmp(options->input, "-"))
        INVALID("score: --input and --baseline cannot both be standard input");
    if (bootstrap_set && !options->baseline) INVALID("score: --seed and --resamples belong to --baseline");
    return STATUS_OK;
}

static Status check_needs(const Options *options) {
    for (int i = 0; i < options->metrics.count; ++i) {
        Metric metric = options->metrics.metrics[i];
        if (metric_needs(metric) & (METRIC_NEEDS_TOKENIZER | METRIC_NEEDS_ENCODER) && !options->model)
            INVALID("score: %s needs --model DIR", metric_name(metric));
    }
    if (metric_list_needs(&options->metrics) & METRIC_NEEDS_ENCODER) return STATUS_OK;
    if (options->bertscore.idf || options->bertscore.baseline_path || options->bertscore.num_layers >= 0)
        INVALID("score: --layer, --idf and --rescale belong to bertscore");
    return STATUS_OK;
}

static Status parse_options(int argc, char **argv, Options *out) {
    static const struct option options[] = {{"metrics", required_argument, NULL, 'm'},
                                            {"input", required_argument, NULL, 'i'},
                                            {"stemmer", no_argument, NULL, 's'},
                                            {"model", required_argument, NULL, 'd'},
                                            {"layer", required_argument, NULL, 'l'},
                                            {"idf", no_argument, NULL, 'w'},
                                            {"rescale", required_argument, NULL, 'c'},
                                            {"per-example", no_argument, NULL, 'e'},
                                            {"baseline", required_argument, NULL, 'b'},
                                            {"seed", required_argument, NULL, 'r'},
                                            {"resamples", required_argument, NULL, 'n'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    const char *metrics = NULL;
    long long seed = (long long)bootstrap_defaults.seed, resamples = bootstrap_defaults.resamples, layer = -1;
    bool bootstrap_set = false;
    *out = (Options){.input = "-"};
    optind = 0;
    for (int character = 0;;) {
        TRY(command_line_next(argc, argv, options, &character));
        if (character == -1) break;
        switch (character) {
        case 'm': metrics = optarg; break;
        case 'i': out->input = optarg; break;
        case 's': out->stemmer = true; break;
        case 'd': out->model = optarg; break;
        case 'l': TRY(command_line_count(argv[0], "layer", optarg, 1000, &layer)); break;
        case 'w': out->bertscore.idf = true; break;
        case 'c': out->bertscore.baseline_path = optarg; break;
        case 'e': out->per_example = true; break;
        case 'b': out->baseline = optarg; break;
        case 'r': TRY(command_line_count(argv[0], "seed", optarg, INT64_MAX, &seed)); break;
        case 'n': TRY(command_line_count(argv[0], "resamples", optarg, 10000000, &resamples)); break;
        default: out->help = true; return STATUS_OK;
        }
        bootstrap_set |= character == 'r' || character == 'n';
    }
    TRY(check_options(out, metrics, bootstrap_set));
    if (resamples == 0) INVALID("score: --resamples must be at least 1");
    out->bertscore.num_layers = layer;
    out->bootstrap = (BootstrapSettings){resamples, bootstrap_defaults.confidence, (uint64_t)seed};
    TRY(status_prefix(metric_list_parse(metrics, &out->metrics), "score: --metrics"));
    return check_needs(out);
}

/* Everything that is read and made; zero-initialised. */
typedef struct Run {
    Options options;
    MetricSettings settings;
    Tokenizer *tokenizer;
    Device *device; /* for bertscore */
    ScoreInput input, baseline;
    MetricReport report, baseline_report;
} Run;

static Status score_file(Run *run, const char *path, const ScoreInput *input, MetricReport *report) {
    if (!strcmp(path, "-")) path = "standard input";
    run->settings.path = path;
    TRY(metrics_compute(&run->options.metrics, &run->settings, input->examples, input->count, report));
    metric_report_warn(report, path);
    return STATUS_OK;
}

static Status example_object(const Run *run, int64_t i, JsonValue **out) {
    TRY_ALLOC(*out = json_value_new_object());
    Text id = {0};
    JsonValue *copy = NULL;
    const JsonValue *given = json_value_get(run->input.lines[i], "id");
    Status status = json_value_set_integer(*out, "line", run->input.examples[i].line);
    if (!status && given) status = json_value_write(given, 0, &id);
    if (!status && given) status = json_value_parse(id.data, id.length, &copy);
    if (!status && given) status = json_value_set(*out, "id", copy);
    if (!status) status = metric_report_example_json(&run->report, i, *out);
    text_free(&id);
    if (status) json_value_free(*out);
    return status;
}

static Status add_examples(const Run *run, JsonValue *object) {
    JsonValue *list, *example;
    TRY_ALLOC(list = json_value_new_array());
    Status status = STATUS_OK;
    for (int64_t i = 0; i < run->input.count && !status; ++i) {
        status = example_object(run, i, &example);
        if (!status) status = json_value_append(list, example);
    }
    if (!status) return json_value_set(object, "per_example", list);
    json_value_free(list);
    return status;
}

static Status print_scores(const Run *run) {
    JsonValue *object;
    TRY(metric_report_json(&run->report, &object));
    return command_print_json(object, run->options.per_example ? add_examples(run, object) : STATUS_OK);
}

static Status print_comparison(const Run *run) {
    MetricTable table;
    Text text = {0};
    JsonValue *object;
    TRY(metric_table_compute(&run->baseline_report, &run->report, run->options.bootstrap, &table));
    Status status = metric_table_text(&table, "base", "adapter", &text);
    if (!status && fputs(text.data, stderr) < 0) status = FAILURE("cannot write to standard error");
    text_free(&text);
    if (!status) status = metric_table_json(&table, &object);
    return status ? status : command_print_json(object, STATUS_OK);
}

static Status open_encoder(Run *run) {
    const char *why;
    TRY(device_open(device_cuda_available(&why) ? BACKEND_CUDA : BACKEND_CPU, 0, 0, &run->device));
    return bertscore_open(run->options.model, &run->options.bertscore, run->device, &run->settings.bertscore);
}

static Status score(Run *run) {
    const Options *options = &run->options;
    unsigned needs = metric_list_needs(&options->metrics);
    run->settings.stemmer = options->stemmer;
    if (needs & METRIC_NEEDS_TOKENIZER) TRY(tokenizer_load(options->model, &run->tokenizer));
    run->settings.tokenizer = run->tokenizer;
    if (needs & METRIC_NEEDS_ENCODER) TRY(open_encoder(run));
    TRY(score_input_read(options->input, needs, &run->input));
    if (options->baseline) {
        TRY(score_input_read(options->baseline, needs, &run->baseline));
        TRY(score_input_check_pair(options->input, &run->input, options->baseline, &run->baseline));
        TRY(score_file(run, options->baseline, &run->baseline, &run->baseline_report));
    }
    TRY(score_file(run, options->input, &run->input, &run->report));
    return options->baseline ? print_comparison(run) : print_scores(run);
}

static void finish(Run *run) {
    metric_report_free(&run->report);
    metric_report_free(&run->baseline_report);
    score_input_free(&run->input);
    score_input_free(&run->baseline);
    tokenizer_free(run->tokenizer);
    bertscore_close(run->settings.bertscore);
    device_close(run->device);
}

Status command_score(int argc, char **argv) {
    Run run = {0};
    TRY(parse_options(argc, argv, &run.options));
    if (run.options.help) return fputs(usage, stdout) < 0 ? FAILURE("cannot write to standard output") : STATUS_OK;
    Status status = score(&run);
    finish(&run);
    return status;
}
