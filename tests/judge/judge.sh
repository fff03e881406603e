#!/bin/bash
# adamem judge: every question gets a judgement that agrees with its reply, the prompt is that of the file, neither batch size
# nor ranks change a byte, and hypothesis files come out as LongMemEval's script reads them.
#
#   tests/judge/judge.sh ADAMEM
set -euo pipefail
adamem=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
scratch=$(mktemp -d "${TMPDIR:-/tmp}/judge-XXXXXX")
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

"$adamem" init-model --preset tiny --output model --tokenizer "$repository/tests/data/tokenizer-small" --seed 6 2>/dev/null
# same WHAT FILE FILE
same() { cmp "$2" "$3" >&2 || fail "$1"; }
ids=(q1 q2 q3 q4 q5 q6 q7 q8 q9 q10 q11 q12_abs)
types=(single-session-user single-session-assistant multi-session temporal-reasoning knowledge-update single-session-preference)
for i in {1..12}; do
    printf '{"question_id": "%s", "question_type": "%s", "question": "What is %d?", "answer": %d, "hypothesis": "It is \\"%d\\" é."}\n' \
        "${ids[i - 1]}" "${types[i % 6]}" "$i" "$i" $((i % 2 ? i : 0))
done >questions.jsonl
judge=("$adamem" judge --task longmemeval --model model --dtype float32 --input questions.jsonl)
"${judge[@]}" --output judgements.jsonl --hypotheses hypotheses.jsonl >summary 2>errors

[[ $(wc -l <judgements.jsonl) == 12 ]] || fail "$(wc -l <judgements.jsonl) judgements of 12 questions"
unparseable=0 correct=0
while read -r line; do
    reply=${line##*\"reply\": \"}
    reply=${reply%\", \"label\": *}
    label=false parsed=false
    if [[ ${reply,,} == *yes* ]]; then
        label=true parsed=true correct=$((correct + 1))
    elif grep -qiw no <<<"$reply"; then
        parsed=true
    else
        unparseable=$((unparseable + 1))
    fi
    [[ $line == *"\"label\": $label, \"parsed\": $parsed}" ]] || fail "$line"
done <judgements.jsonl
grep -q "^{\"task\": \"longmemeval\", \"judgements\": 12, \"unparseable\": $unparseable, \"correct\": $correct, " summary ||
    fail "summary: $(<summary)"
((unparseable == 0)) || grep -q "$unparseable of 12 replies could not be read" errors || fail "unread replies are not told"
for type in "${types[@]}"; do grep -q "\"$type\": {\"accuracy\": [0-9.]*, \"judgements\": 2}" summary || fail "$type: $(<summary)"; done

# The prompt of q2 by hand.
sed 's/{question}/What is 2?/; s/{answer}/2/; s/{hypothesis}/It is "0" é./' "$repository/configs/prompts/judge_longmemeval.txt" >prompt
hash=$(head -c -1 prompt | sha256sum | cut -d' ' -f1)
sed -n 2p judgements.jsonl | grep -q "\"question_id\": \"q2\", .*\"prompt_sha256\": \"$hash\"" || fail "prompt of q2 is not $hash"
[[ $(cut -d'"' -f12 judgements.jsonl | sort -u | wc -l) == 12 ]] || fail "prompts are not 12 different ones"

"${judge[@]}" --output single.jsonl --batch-size 1 >summary1 2>/dev/null
same "batch size 1" judgements.jsonl single.jsonl
same "summary of batch size 1" summary summary1
if command -v mpirun >/dev/null; then
    OMP_NUM_THREADS=1 mpirun --oversubscribe --bind-to none -n 2 "${judge[@]}" --output ranks.jsonl >summary2 2>/dev/null
    same "two ranks" judgements.jsonl ranks.jsonl
    same "summary of two ranks" summary summary2
fi
"${judge[@]}" >both 2>/dev/null
cat judgements.jsonl summary | cmp - both || fail "standard output is not judgements and summary"

# Hypotheses: from the input, from adamem generate's output in its order, from a file with ids.
for i in {1..12}; do
    printf '{"question_id": "%s", "hypothesis": "It is \\"%d\\" é."}\n' "${ids[i - 1]}" $((i % 2 ? i : 0))
done >expected.jsonl
same "hypotheses" hypotheses.jsonl expected.jsonl
sed 's/, "hypothesis.*/}/' questions.jsonl >bare.jsonl
sed 's/.*"hypothesis": \(.*\)}/{"text": \1, "ids": [1]}/' questions.jsonl >generated.jsonl
for replies in generated.jsonl expected.jsonl; do
    "$adamem" judge --task longmemeval --input bare.jsonl --generated "$replies" --hypotheses - >found.jsonl
    same "hypotheses of $replies" found.jsonl expected.jsonl
done

# Scores; prompts from a folder.
sed 's/"question_type": "[^"]*", //' questions.jsonl >edits.jsonl
cp -r "$repository/configs/prompts" prompts
edit=("$adamem" judge --task knowledge_edit --model model --dtype float32 --input edits.jsonl)
"${edit[@]}" --output scores.jsonl >summary 2>/dev/null
grep -Eq '^\{"task": "knowledge_edit", "judgements": 12, "unparseable": [0-9]+, "mean_score": (null|[0-9.]+), "scores": ' summary ||
    fail "scores: $(<summary)"
[[ $(grep -Ec '"score": (null|[1-5]), "parsed": ' scores.jsonl) == 12 ]] || fail "scores: $(<scores.jsonl)"
"${edit[@]}" --prompts prompts --output same.jsonl >/dev/null 2>&1
same "the prompts in the folder" scores.jsonl same.jsonl
echo 'Grade {hypothesis} against {answer}: ' >prompts/judge_knowledge_edit.txt
"${edit[@]}" --prompts prompts --output other.jsonl >/dev/null 2>&1
hash=$(printf 'Grade It is "1" é. against 1: ' | sha256sum | cut -d' ' -f1)
head -n 1 other.jsonl | grep -q "$hash" || fail "--prompts is not used"
echo "adamem judge: all as expected"
