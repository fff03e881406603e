#!/bin/bash
# Lines that cannot be scored: the message names file, line and field.
#
#   tests/bad_input/score.sh ADAMEM
set -euo pipefail
adamem=$1
# shellcheck source=tests/bad_input/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
tokenizer=$repository/tests/data/tokenizer-small
encoder=$repository/tests/data/encoder/bert
make_chatty
good='{"id": 1, "prediction": "a cat", "references": ["the cat", "cats"], "constraints": ["cat"], "original": "a b", "compressed": "a"}'
printf '%s\n%s\n' "$good" "$good" >good.jsonl

# refuse_line WHAT PATTERN METRICS LINE: behind a good line.
refuse_line() {
    printf '%s\n%s\n' "$good" "$4" >bad.jsonl
    refuse "$1" "^error: bad.jsonl:2: $2" score --metrics "$3" --input bad.jsonl --model "$tokenizer"
}

refuse "no metrics" 'score: --metrics LIST is missing' score --input good.jsonl
refuse "empty list" 'score: --metrics: no metric is named' score --metrics '' --input good.jsonl
refuse "unknown metric" '--metrics: unknown metric "rouge"; the nearest is rouge1' score --metrics f1,rouge --input good.jsonl
refuse "case" 'unknown metric "ROUGEL"; the nearest is rougeL' score --metrics ROUGEL --input good.jsonl
refuse "long name" 'unknown metric "x+"' score --metrics "$(printf 'x%.0s' {1..200})" --input good.jsonl
refuse "twice" '"f1" is named twice' score --metrics f1,em,f1 --input good.jsonl
refuse "no such file" 'nowhere.jsonl: cannot' score --metrics f1 --input nowhere.jsonl
refuse "a directory" '^error: model: ' score --metrics f1 --input model
refuse "standard input without a line" 'standard input: there is no line to score' score --metrics f1
refuse "trr without model" 'score: trr needs --model DIR' score --metrics trr --input good.jsonl
refuse "tokens without model" 'score: tokens needs --model DIR' score --metrics f1,tokens --input good.jsonl
refuse "bertscore without model" 'score: bertscore needs --model DIR' score --metrics bertscore --input good.jsonl
refuse "idf without bertscore" '--layer, --idf and --rescale belong to bertscore' score --metrics f1 --input good.jsonl --idf
refuse "layer without bertscore" '--layer, --idf and --rescale belong' score --metrics f1 --input good.jsonl --layer 2
refuse "layer x" '--layer x: expected a whole number' score --metrics bertscore --model "$encoder" --input good.jsonl --layer x
refuse "no such layer" 'layer' score --metrics bertscore --model "$encoder" --input good.jsonl --layer 40
refuse "layer not known" 'which layer BERTScore should take' score --metrics bertscore --model "$encoder" --input good.jsonl
refuse "no baseline file" 'nowhere.csv' score --metrics bertscore --model "$encoder" --input good.jsonl --layer 1 --rescale nowhere.csv
refuse "bertscore of a decoder" 'chatty' score --metrics bertscore --model chatty --input good.jsonl --layer 1
printf '%s\n' "$good" '{"prediction": "a\u0000b", "references": ["x"]}' >nul.jsonl
refuse "bertscore of NUL" '^error: nul.jsonl:2: the prediction holds a NUL' score --metrics bertscore --model "$encoder" --layer 1 --input nul.jsonl
refuse "model without tokenizer" 'model: holds neither tokenizer.json' score --metrics trr --input good.jsonl --model model
refuse "no such model" 'nowhere' score --metrics trr --input good.jsonl --model nowhere
refuse "seed without baseline" '--seed and --resamples belong to --baseline' score --metrics f1 --input good.jsonl --seed 1
refuse "resamples 0" '--resamples must be at least 1' score --metrics f1 --input good.jsonl --baseline good.jsonl --resamples 0
refuse "resamples x" '--resamples x: expected a whole number' score --metrics f1 --input good.jsonl --baseline good.jsonl --resamples x
refuse "both standard input" 'cannot both be standard input' score --metrics f1 --baseline -
refuse "per example of two" '--baseline and --per-example exclude each other' score --metrics f1 --input good.jsonl --baseline good.jsonl --per-example

refuse_line "no prediction" '"prediction"' rouge1 '{"references": ["x"]}'
refuse_line "prediction null" '"prediction"' rouge1 '{"prediction": null, "references": ["x"]}'
refuse_line "prediction list" '"prediction"' rouge1 '{"prediction": ["x"], "references": ["x"]}'
refuse_line "no references" '"references"' rougeL '{"prediction": "x"}'
refuse_line "references empty" '"references" is empty; a question without an answer' em '{"prediction": "x", "references": []}'
refuse_line "references string" '"references"' f1 '{"prediction": "x", "references": "x"}'
refuse_line "reference number" '"references"\[1\] is of type integer, expected a string' f1 '{"prediction": "x", "references": ["a", 3]}'
refuse_line "reference null" '"references"\[0\]' f1 '{"prediction": "x", "references": [null]}'
refuse_line "references of words" '"references"' words '{"prediction": "x", "references": "x"}'
refuse_line "no constraints" '"constraints"' fact_retention '{"prediction": "x"}'
refuse_line "constraints empty" '"constraints" is empty' fact_retention '{"prediction": "x", "constraints": []}'
refuse_line "constraint number" '"constraints"\[0\]' fact_retention '{"prediction": "x", "constraints": [1]}'
refuse_line "constraint blank" 'constraints\[0\] has neither letter nor digit' fact_retention '{"prediction": "x", "constraints": [" - "]}'
refuse_line "no original" '"original"' trr '{"compressed": "x"}'
refuse_line "no compressed" '"compressed"' trr '{"original": "x"}'
refuse_line "original empty" '"original" has no token' trr '{"original": "", "compressed": "x"}'
refuse_line "compressed number" '"compressed"' trr '{"original": "x", "compressed": 1}'
refuse_line "a list" '' f1 '["x"]'
refuse_line "no JSON" '' f1 'prediction: x'
refuse_line "cut" '' f1 '{"prediction": "x", "refer'
refuse_line "a key twice" '' f1 '{"prediction": "x", "prediction": "y", "references": ["x"]}'
refuse_line "not UTF-8" '' f1 $'{"prediction": "\xff", "references": ["x"]}'

head -n 1 good.jsonl >short.jsonl
refuse "baseline of another length" 'good.jsonl has 2 lines and short.jsonl has 1' score --metrics f1 --input good.jsonl --baseline short.jsonl
for field in references constraints original id; do
    printf '%s\n%s\n' "$good" "$(sed -E "s/(\"$field\": )(\[[^]]*\]|[0-9]+|\"[^\"]*\")/\1REPLACED/; s/REPLACED/$(
        case $field in id) echo 2 ;; original) echo '"b"' ;; *) echo '["b"]' ;; esac
    )/" <<<"$good")" >other.jsonl
    refuse "baseline with another $field" "good.jsonl:2 and other.jsonl:2 have different \"$field\"" \
        score --metrics f1,fact_retention,trr --model "$tokenizer" --input good.jsonl --baseline other.jsonl
done
head -c 60 <(gzip -c good.jsonl) >cut.jsonl.gz
refuse "truncated gzip" 'cut.jsonl.gz:1: the compressed stream is truncated|cut.jsonl.gz.*truncated' score --metrics f1 --input cut.jsonl.gz

# Counted and printed, never left out.
printf '%s\n%s\n' "$good" '{"prediction": "", "references": [""]}' >empty.jsonl
accept "empty texts" score --metrics rouge1,f1 --input empty.jsonl
grep -q 'warning: empty.jsonl: 1 of 2 predictions are empty' output || complain "empty prediction" "is not counted"
grep -q 'warning: empty.jsonl: 1 references are empty' output || complain "empty reference" "is not counted"
accept "good lines" score --metrics rouge1,rouge2,rougeL,rougeLsum,f1,em,fact_retention,trr,words,characters,tokens --model "$tokenizer" --input good.jsonl
accept "bertscore" score --metrics bertscore --model "$encoder" --layer 1 --idf --rescale "$encoder/../baseline.csv" --input good.jsonl
accept "good pair" score --metrics f1 --input good.jsonl --baseline good.jsonl

all_refused "score"
