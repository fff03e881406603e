#!/bin/sh
# adamem score from the command line: its output for given lines, one and several threads, standard input, comparison.
#   score.sh ADAMEM DATA
set -eu
adamem=$1 data=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# expect WHAT TEXT: the file output holds exactly the line TEXT.
expect() {
    if [ "$(cat output)" != "$2" ]; then
        printf '%s: got\n%s\nexpected\n%s\n' "$1" "$(cat output)" "$2" >&2
        exit 1
    fi
}

cat >lines.jsonl <<'LINES'
{"id": "q1", "prediction": "The cats ran.\nA dog slept", "references": ["no match", "A dog slept.\nCats were running"]}

{"id": 7, "prediction": "Paris", "references": ["paris!", "Paris, France"]}
LINES
"$adamem" score --metrics rouge1,rougeLsum,f1,em --input lines.jsonl >output
expect "plain" '{"rouge1": {"precision": 0.8333333333333333, "recall": 0.8333333333333333, "fmeasure": 0.8333333333333333}, "rougeLsum": {"precision": 0.8333333333333333, "recall": 0.8333333333333333, "fmeasure": 0.8333333333333333}, "f1": 0.8333333333333333, "em": 0.5}'
"$adamem" score --metrics rougeL,rouge2 --stemmer --per-example <lines.jsonl >output
expect "stemmer" '{"rougeL": {"precision": 0.75, "recall": 0.75, "fmeasure": 0.75}, "rouge2": {"precision": 0.2, "recall": 0.2, "fmeasure": 0.20000000000000004}, "per_example": [{"line": 1, "id": "q1", "rougeL": {"precision": 0.5, "recall": 0.5, "fmeasure": 0.5}, "rouge2": {"precision": 0.4, "recall": 0.4, "fmeasure": 0.4000000000000001}}, {"line": 3, "id": 7, "rougeL": {"precision": 1.0, "recall": 1.0, "fmeasure": 1.0}, "rouge2": {"precision": 0.0, "recall": 0.0, "fmeasure": 0.0}}]}'

for threads in 1 3; do
    OMP_NUM_THREADS=$threads "$adamem" score --metrics f1,em,rougeL --per-example --input "$data/metrics/answers.jsonl.gz" >"threads$threads" 2>errors
done
cmp threads1 threads3
grep -q 'predictions are empty' errors

# The first reference as another system's predictions, against the golden predictions.
gzip -dc "$data/metrics/answers.jsonl.gz" | sed -E 's/^\{"prediction": "([^"\\]|\\.)*", "references": \[("([^"\\]|\\.)*")/{"prediction": \2, "references": [\2/' >first.jsonl
for threads in 1 3; do
    OMP_NUM_THREADS=$threads "$adamem" score --metrics f1,words --input first.jsonl --baseline "$data/metrics/answers.jsonl.gz" \
        --resamples 1000 >"threads$threads" 2>table
done
cmp threads1 threads3
grep -Eq '"f1": \{"base": 0\.[0-9]+, "base_interval": \[0\.[0-9]+, 0\.[0-9]+\], "adapter": 0\.965, "adapter_interval": \[0\.9[0-9]+, ' threads1
grep -Eq '"p_value": 0\.000999' threads1
grep -Eq '^f1 +0\.[0-9]{4} +0\.9650 +\+0\.[0-9]{4}' table
grep -q '^1000 examples; paired bootstrap, 1000 resamples, seed 42$' table
echo "score: all as expected"
