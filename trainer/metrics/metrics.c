#include "trainer/metrics/metrics.h"

#include "io/log.h"
#include "io/unicode.h"
#include "io/utf8.h"
#include "trainer/metrics/answer.h"
#include "trainer/metrics/bertscore_examples.h"
#include "trainer/metrics/fact_retention.h"
#include "trainer/metrics/rouge.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

/* What one thread keeps from example to example. */
typedef struct Worker {
    RougeScorer *rouge;
    AnswerScratch answer;
    FactScratch facts;
    TokenizerScratch *tokenizer;
    TokenList ids;
    MetricCounts counts;
    Status status; /* of the first example that failed, */
    int64_t failed;
} Worker;

typedef struct Job {
    const MetricSettings *settings;
    const MetricExample *examples;
    MetricReport *report;
    double *reference_lengths; /* [list.count][example_count]: sums over the example's references */
    unsigned rouge_kinds;
} Job;

static const RougeKind rouge_kind_of[] = {
    [METRIC_ROUGE_1] = ROUGE_1, [METRIC_ROUGE_2] = ROUGE_2, [METRIC_ROUGE_L] = ROUGE_L, [METRIC_ROUGE_LSUM] = ROUGE_LSUM};

static bool is_rouge(Metric metric) { return metric <= METRIC_ROUGE_LSUM; }

static bool is_blank(MetricText text) {
    for (size_t i = 0, size; i < text.length; i += size)
        if (!unicode_is_space(utf8_decode((const unsigned char *)text.bytes + i, &size))) return false;
    return true;
}

static void count_characters(MetricText text, double *words, double *characters) {
    bool inside = false;
    *words = *characters = 0;
    for (size_t i = 0, size; i < text.length; i += size) {
        bool space = unicode_is_space(utf8_decode((const unsigned char *)text.bytes + i, &size));
        *words += !space && !inside;
        *characters += 1;
        inside = !space;
    }
}

static Status count_tokens(const Job *job, Worker *worker, MetricText text, double *tokens) {
    token_list_clear(&worker->ids);
    TRY(tokenizer_encode(job->settings->tokenizer, worker->tokenizer, text.bytes, text.length, &worker->ids));
    *tokens = (double)worker->ids.count;
    return STATUS_OK;
}

static Status length_of(const Job *job, Worker *worker, Metric metric, MetricText text, double *out) {
    double words, characters;
    if (metric == METRIC_TOKENS) return count_tokens(job, worker, text, out);
    count_characters(text, &words, &characters);
    *out = metric == METRIC_WORDS ? words : characters;
    return STATUS_OK;
}

static Status compression(const Job *job, Worker *worker, const MetricExample *e, double *out) {
    double before, after;
    TRY(count_tokens(job, worker, e->original, &before));
    TRY(count_tokens(job, worker, e->compressed, &after));
    if (before == 0) INVALID("\"original\" has no token: the token reduction ratio divides by their number");
    *out = 1 - after / before;
    return STATUS_OK;
}

static Status score_metric(const Job *job, Worker *worker, int at, int64_t i, const RougeScore *rouge) {
    const MetricExample *e = &job->examples[i];
    MetricResult *result = &job->report->results[at];
    MetricScore *score = &result->scores[i];
    double f1, exact_match;
    switch (result->metric) {
    case METRIC_F1:
    case METRIC_EM:
        TRY(answer_score(&worker->answer, e->prediction, e->references, e->reference_count, &f1, &exact_match));
        score->value = result->metric == METRIC_F1 ? f1 : exact_match;
        return STATUS_OK;
    case METRIC_FACT_RETENTION:
        return fact_retention(&worker->facts, e->prediction, e->constraints, e->constraint_count, &score->value);
    case METRIC_TRR: return compression(job, worker, e, &score->value);
    case METRIC_BERTSCORE: return STATUS_OK; /* of all examples at once, see run */
    default: break;
    }
    if (is_rouge(result->metric)) {
        const RougeScore *of = &rouge[rouge_kind_of[result->metric]];
        *score = (MetricScore){of->precision, of->recall, of->fmeasure};
        return STATUS_OK;
    }
    TRY(length_of(job, worker, result->metric, e->prediction, &score->value));
    for (int64_t r = 0; r < e->reference_count; ++r) {
        double length;
        TRY(length_of(job, worker, result->metric, e->references[r], &length));
        job->reference_lengths[at * job->report->example_count + i] += length;
    }
    return STATUS_OK;
}

static Status check_text(MetricText text, const char *what) {
    if (!text.bytes) INVALID("%s is missing", what);
    size_t valid = utf8_valid_prefix(text.bytes, text.length);
    if (valid != text.length) INVALID("%s: invalid UTF-8 at byte %zu", what, valid);
    return STATUS_OK;
}

static Status check_example(const MetricExample *e, unsigned needs) {
    if (needs & METRIC_NEEDS_PREDICTION) TRY(check_text(e->prediction, "the prediction"));
    if (needs & METRIC_NEEDS_REFERENCES && e->reference_count < 1)
        INVALID("there is no reference; a question without an answer has one reference, the empty text");
    for (int64_t r = 0; r < e->reference_count; ++r) TRY(check_text(e->references[r], "a reference"));
    if (needs & METRIC_NEEDS_CONSTRAINTS && e->constraint_count < 1) INVALID("there is no constraint to look for");
    if (needs & METRIC_NEEDS_COMPRESSION) TRY(check_text(e->original, "the original"));
    return needs & METRIC_NEEDS_COMPRESSION ? check_text(e->compressed, "the compressed text") : STATUS_OK;
}

static void count_blank(const MetricExample *e, unsigned needs, MetricCounts *counts) {
    bool blank = (needs & METRIC_NEEDS_PREDICTION && is_blank(e->prediction)) ||
                 (needs & METRIC_NEEDS_COMPRESSION && is_blank(e->compressed));
    counts->empty_predictions += blank;
    for (int64_t r = 0; r < e->reference_count; ++r) counts->empty_references += is_blank(e->references[r]);
}

static Status score_example(const Job *job, Worker *worker, int64_t i) {
    const MetricExample *e = &job->examples[i];
    unsigned needs = metric_list_needs(&job->report->list);
    RougeScore rouge[ROUGE_KINDS];
    TRY(check_example(e, needs));
    count_blank(e, needs, &worker->counts);
    if (job->rouge_kinds)
        TRY(rouge_score(worker->rouge, job->rouge_kinds, e->prediction, e->references, e->reference_count, rouge));
    for (int m = 0; m < job->report->list.count; ++m) TRY(score_metric(job, worker, m, i, rouge));
    return STATUS_OK;
}

static Status workers_start(const Job *job, Worker *workers, int count) {
    for (int w = 0; w < count; ++w) {
        if (job->rouge_kinds) TRY(rouge_scorer_create(job->settings->stemmer, &workers[w].rouge));
        if (job->settings->tokenizer) TRY(tokenizer_scratch_new(job->settings->tokenizer, &workers[w].tokenizer));
    }
    return STATUS_OK;
}

static void workers_finish(Worker *workers, int count) {
    for (int w = 0; w < count; ++w) {
        rouge_scorer_destroy(workers[w].rouge);
        answer_scratch_free(&workers[w].answer);
        fact_scratch_free(&workers[w].facts);
        tokenizer_scratch_free(workers[w].tokenizer);
        token_list_free(&workers[w].ids);
    }
    free(workers);
}

Status metric_example_error(const MetricSettings *settings, const MetricExample *examples, int64_t i, Status status) {
    long long line = examples[i].line ? examples[i].line : i + 1;
    if (settings->path) return status_prefix(status, "%s:%lld", settings->path, line);
    return status_prefix(status, "example %lld", line);
}

/* The first example's error is the one that is told, whichever thread met it. */
static Status first_error(const Job *job, Worker *workers, int count) {
    Worker *first = NULL;
    for (int w = 0; w < count; ++w)
        if (workers[w].status && (!first || workers[w].failed < first->failed)) first = &workers[w];
    for (int w = 0; w < count; ++w)
        if (&workers[w] != first) status_free(workers[w].status);
    if (!first) return STATUS_OK;
    return metric_example_error(job->settings, job->examples, first->failed, first->status);
}

static Status score_all(const Job *job, Worker *workers, int count) {
#pragma omp parallel num_threads(count)
    {
        Worker *worker = &workers[omp_get_thread_num()];
#pragma omp for schedule(dynamic, 16)
        for (int64_t i = 0; i < job->report->example_count; ++i) {
            if (worker->status) continue;
            worker->status = score_example(job, worker, i);
            worker->failed = i;
        }
    }
    for (int w = 0; w < count; ++w) {
        job->report->counts.empty_predictions += workers[w].counts.empty_predictions;
        job->report->counts.empty_references += workers[w].counts.empty_references;
    }
    return first_error(job, workers, count);
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static Status median_of(const MetricScore *scores, int64_t count, double *median) {
    double *values;
    TRY_ALLOC(values = malloc((size_t)count * sizeof *values));
    for (int64_t i = 0; i < count; ++i) values[i] = scores[i].value;
    qsort(values, (size_t)count, sizeof *values, ascending);
    *median = count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
    free(values);
    return STATUS_OK;
}

/* In the examples' order: the same bits with any number of threads. */
static Status summarize(const Job *job, int at) {
    MetricResult *result = &job->report->results[at];
    int64_t count = job->report->example_count, references = 0;
    double lengths = 0;
    for (int64_t i = 0; i < count; ++i) {
        result->mean.precision += result->scores[i].precision;
        result->mean.recall += result->scores[i].recall;
        result->mean.value += result->scores[i].value;
        lengths += job->reference_lengths[at * count + i];
        references += job->examples[i].reference_count;
    }
    result->mean.precision /= (double)count;
    result->mean.recall /= (double)count;
    result->mean.value /= (double)count;
    result->reference_mean = metric_is_length(result->metric) && references ? lengths / (double)references : NAN;
    return median_of(result->scores, count, &result->median);
}

static Status run(Job *job) {
    MetricReport *report = job->report;
    int threads = omp_get_max_threads();
    Worker *workers;
    TRY_ALLOC(job->reference_lengths = calloc((size_t)report->list.count * (size_t)report->example_count, sizeof(double)));
    TRY_ALLOC(workers = calloc((size_t)threads, sizeof *workers));
    Status status = workers_start(job, workers, threads);
    if (!status) status = score_all(job, workers, threads);
    workers_finish(workers, threads);
    for (int m = 0; m < report->list.count && !status; ++m) {
        if (report->results[m].metric == METRIC_BERTSCORE)
            status = bertscore_examples(job->settings, job->examples, report->example_count, report->results[m].scores,
                                        &report->counts);
        if (!status) status = summarize(job, m);
    }
    return status;
}

Status metrics_compute(const MetricList *list, const MetricSettings *settings, const MetricExample *examples, int64_t count,
                       MetricReport *out) {
    Job job = {.settings = settings, .examples = examples, .report = out};
    unsigned needs = metric_list_needs(list);
    *out = (MetricReport){.list = *list, .example_count = count};
    if (count < 1) INVALID("%s%sthere is no example to score", settings->path ? settings->path : "", settings->path ? ": " : "");
    if (needs & METRIC_NEEDS_TOKENIZER && !settings->tokenizer) INVALID("trr and tokens need a tokenizer");
    if (needs & METRIC_NEEDS_ENCODER && !settings->bertscore) INVALID("bertscore needs an encoder");
    Status status = STATUS_OK;
    for (int m = 0; m < list->count && !status; ++m) {
        MetricResult *result = &out->results[m];
        result->metric = list->metrics[m];
        result->scores = calloc((size_t)count, sizeof *result->scores);
        if (!result->scores) status = FAILURE("out of memory: scores of %lld examples", (long long)count);
        if (is_rouge(result->metric)) job.rouge_kinds |= 1u << rouge_kind_of[result->metric];
    }
    if (!status) status = run(&job);
    free(job.reference_lengths);
    if (status) metric_report_free(out);
    return status;
}

void metric_report_free(MetricReport *report) {
    for (int m = 0; m < report->list.count; ++m) free(report->results[m].scores);
    *report = (MetricReport){0};
}
