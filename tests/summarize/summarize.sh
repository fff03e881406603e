#!/bin/bash
# adamem summarize: one line per document in order, levels that fit together, the same bytes on any number of ranks and batch
# sizes, from a file or standard input, greedy or sampled; the prompts that are asked for.
#
#   tests/summarize/summarize.sh ADAMEM
set -euo pipefail
adamem=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
scratch=$(mktemp -d "${TMPDIR:-/tmp}/summarize-XXXXXX")
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
export TMPDIR=$scratch OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

"$adamem" init-model --preset tiny --output model --tokenizer "$repository/tests/data/tokenizer-small" --seed 6 2>/dev/null
text=$(for i in {1..60}; do printf 'On day %d the committee met again in the old hall. ' "$i"; done)
{
    printf '{"id": "long", "document": "%s"}\n' "$text"
    printf '{"id": 7, "document": ""}\n'
    printf '{"id": "short \\"é\\"", "document": "It rained."}\n'
    printf '{"id": "blank", "document": " \\n "}\n'
    printf '{"id": "word", "document": "%s"}\n' "$(printf 'x%.0s' {1..500})"
    printf '{"id": "cjk", "document": "%s"}\n' "$(printf '日本語😀%.0s' {1..60})"
} >documents.jsonl
summarize=("$adamem" summarize --model model --dtype float32 --max-new-tokens 16 --chunk-tokens 100 --overlap-tokens 20
    --repetition-penalty 1.5)
"${summarize[@]}" --input documents.jsonl --output greedy.jsonl --intermediate parts.jsonl 2>errors

[[ $(sed 's/, "summary": .*//' greedy.jsonl) == "$(sed 's/, "document": .*//' documents.jsonl)" ]] || fail "ids: $(<greedy.jsonl)"
for id in 7 '"blank"'; do
    grep -Eq "^\{\"id\": $id, \"summary\": \"\", \"levels\": 0, \"chunks\": 0, .*\"finish_reason\": \"empty\"\}" greedy.jsonl ||
        fail "empty document $id"
done
grep -q '2 documents are empty' errors || fail "empty documents are not told"
grep -q '^{"id": "short .*"levels": 1, "chunks": 1, "document_tokens": [0-9]*, ' greedy.jsonl || fail "short document"
grep -q 'summarized chunks' errors && fail "progress without a terminal"

# The parts: level 1 of a document covers its tokens, each chunk begins at or before the end of the one before; the last level
# has one chunk, whose summary is the document's.
check_parts() { # ID
    local id=$1 tokens levels chunks summary covered=0 number=0 level chunk begin end
    read -r levels chunks tokens < <(sed -n "s/^{\"id\": $id,.*\"levels\": \([0-9]*\), \"chunks\": \([0-9]*\), \"document_tokens\": \([0-9]*\),.*/\1 \2 \3/p" greedy.jsonl)
    while read -r level chunk begin end; do
        [[ $level == 1 ]] || continue
        ((chunk == number && begin <= covered && end > covered && covered - begin <= 20 && end - begin <= 100)) ||
            fail "$id: chunk $chunk is $begin to $end after $covered"
        covered=$end number=$((number + 1))
    done < <(sed -n "s/^{\"id\": $id, \"level\": \([0-9]*\), \"chunk\": \([0-9]*\), \"tokens\": \[\([0-9]*\), \([0-9]*\)\].*/\1 \2 \3 \4/p" parts.jsonl)
    ((covered == tokens && number == chunks && chunks > 1 && levels > 1)) || fail "$id: $number chunks up to $covered of $tokens tokens"
    [[ $(grep -c "^{\"id\": $id, \"level\": $levels, " parts.jsonl) == 1 ]] || fail "$id: level $levels has not one chunk"
    summary=$(grep "^{\"id\": $id, \"level\": $levels, " parts.jsonl | sed 's/.*"summary": \(".*"\), "summary_tokens.*/\1/')
    grep "^{\"id\": $id, " greedy.jsonl | grep -qF "\"summary\": $summary, \"levels\"" || fail "$id: another summary"
}
for id in '"long"' '"word"' '"cjk"'; do check_parts "$id"; done
count=$(printf '%s' "$text" | sed 's/.*/{"text": "&"}/' | "$adamem" tokenize --tokenizer model | grep -o '[0-9]\+' | wc -l)
grep -q "^{\"id\": \"long\", .*\"document_tokens\": $count, " greedy.jsonl || fail "the long document has $count tokens"

same() { cmp "$2" "$3" >&2 || fail "$1"; }
"${summarize[@]}" --input documents.jsonl --batch-size 1 --output one.jsonl --intermediate parts1.jsonl 2>/dev/null
same "batch size 1" greedy.jsonl one.jsonl
same "parts of batch size 1" parts.jsonl parts1.jsonl
sampled=("${summarize[@]}" --temperature 1.1 --top-k 50 --seed 3)
"${sampled[@]}" --input - <documents.jsonl >sampled.jsonl 2>/dev/null
cmp -s greedy.jsonl sampled.jsonl && fail "--temperature does nothing"
"${sampled[@]}" --seed 4 --input documents.jsonl >other.jsonl 2>/dev/null
cmp -s other.jsonl sampled.jsonl && fail "--seed does nothing"
if command -v mpirun >/dev/null; then
    for n in 2 3; do
        mpirun --oversubscribe --bind-to none -n "$n" "${sampled[@]}" --input documents.jsonl --batch-size $((n + 1)) --output ranks.jsonl \
            2>/dev/null
        same "$n ranks, sampled" sampled.jsonl ranks.jsonl
    done
fi

# Prompts. A document of one chunk is what adamem generate is asked: the same ids, so the same text.
one_prompt() { # NAME PROMPT_JSON ARGUMENTS...
    local name=$1 prompt=$2 asked answered
    shift 2
    "${summarize[@]}" --input one_document.jsonl "$@" >"$name.jsonl" 2>/dev/null
    printf '%s\n' "$prompt" | "$adamem" generate --model model --dtype float32 --max-new-tokens 16 --repetition-penalty 1.5 --input - >"$name.generated" 2>/dev/null
    asked=$(sed 's/.*"summary": "\(.*\)", "levels".*/\1/; s/^ *//; s/ *$//' "$name.jsonl")
    answered=$(sed 's/{"text": "\(.*\)", "ids".*/\1/; s/^ *//; s/ *$//' "$name.generated")
    [[ $asked == "$answered" ]] || fail "$name: $asked, not $answered"
}
document='It rained all day. Nobody came.'
printf '{"id": 1, "document": "%s"}\n' "$document" >one_document.jsonl
map=$(sed "s/{document}/$document/" "$repository/configs/prompts/summarize_map.txt" | sed ':a; N; $!ba; s/\n/\\n/g')
one_prompt plain "{\"prompt\": \"$map\"}" --style plain
one_prompt chat "{\"messages\": [{\"role\": \"user\", \"content\": \"$map\"}]}"
one_prompt qwen_sum "{\"prompt\": \"[INST] Summarize the following news article:\\n\\n$document\\n\\nSummary: [/INST]\"}" --style qwen_sum
echo 'Say {document} again:' >mine.txt
one_prompt mine "{\"prompt\": \"Say $document again:\"}" --style plain --prompt-template mine.txt
"${summarize[@]}" --input documents.jsonl --reduce-template mine.txt --intermediate reduced.jsonl --output reduced_summaries.jsonl 2>/dev/null
same "level 1 does not depend on --reduce-template" <(grep '"level": 1,' parts.jsonl) <(grep '"level": 1,' reduced.jsonl)
cmp -s parts.jsonl reduced.jsonl && fail "--reduce-template does nothing"

# Summaries longer than what they summarize: cut and told, and it ends.
"$adamem" summarize --model model --dtype float32 --max-new-tokens 200 --chunk-tokens 64 --overlap-tokens 32 --repetition-penalty 1.5 \
    --input documents.jsonl --output cut.jsonl 2>errors
grep -q 'summaries were cut, because a level did not shrink' errors || fail "cut summaries are not told: $(<errors)"
grep -q '^{"id": "long", .*"cut_summaries": [1-9]' cut.jsonl || fail "no cut summaries: $(<cut.jsonl)"
: >nothing.jsonl
[[ -z $("${summarize[@]}" --input nothing.jsonl 2>/dev/null) ]] || fail "an empty input has an output"
echo "adamem summarize: all as expected"
