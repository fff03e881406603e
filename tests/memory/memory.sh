#!/bin/bash
# adamem memory: the same input gives the same bytes however it comes in; the narrative is what adamem generate writes for a
# prompt made by hand; generated data is format memory and states what its slots say.
#
#   tests/memory/memory.sh ADAMEM
set -euo pipefail
adamem=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
scratch=$(mktemp -d "${TMPDIR:-/tmp}/memory-XXXXXX")
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

fail() {
    echo "FAILED: $*" >&2
    exit 1
}
# same WHAT FILE FILE
same() { cmp "$2" "$3" >&2 || fail "$1"; }

echo '{}' >memory.json
cat >turns.json <<'JSON'
[{"role": "user", "text": "I want to see Kraków. What does a hotel cost there?"},
 {"role": "assistant", "text": "A hotel costs 90 euro."}, {"role": "user", "text": "Let's take it. When do trains leave?"}]
JSON
cat >turns.jsonl <<'JSON'
{"role": "user", "text": "I want to see Kraków. What does a hotel cost there?"}
{"role": "assistant", "text": "A hotel costs 90 euro."}

{"role": "user", "text": "Let's take it. When do trains leave?"}
JSON
gzip -k turns.jsonl
echo '{"file_name": "a.txt", "doc_summary": "About trains."}' >document.json
cat >expected.json <<'JSON'
{
  "narrative": "",
  "structured": {
    "goal": "I want to see Kraków.",
    "established_facts": [
      "a.txt: About trains.",
      "A hotel costs 90 euro."
    ],
    "current_focus": "Let's take it. When do trains leave?",
    "unresolved_questions": [
      "When do trains leave?"
    ],
    "decisions": [
      "Let's take it."
    ],
    "open_problems": []
  }
}
JSON
update=("$adamem" memory update --structure-only --memory memory.json --document document.json)
"${update[@]}" --turns turns.json >output
same "structure" output expected.json
"${update[@]}" --turns turns.jsonl >output
same "JSON lines" output expected.json
"${update[@]}" --turns turns.jsonl.gz --output written.json
same "compressed, into a file" written.json expected.json
"${update[@]}" --turns - <turns.json >output
same "standard input" output expected.json
"$adamem" memory update --structure-only --memory - --turns turns.json --document document.json <memory.json >output
same "memory from standard input" output expected.json
"${update[@]}" --memory written.json --turns turns.json --output written.json
same "in place, the same session again" written.json expected.json

# The narrative against adamem generate, asked in the words of the template.
"$adamem" init-model --preset tiny --output model --tokenizer "$repository/tests/data/tokenizer-small" --seed 5 2>/dev/null
"$adamem" memory update --model model --dtype float32 --max-new-tokens 8 --memory memory.json --turns turns.json \
    --document document.json >output 2>errors
grep -Eq '^narrative: [0-9.]+ s, 8 output tokens, [0-9.]+ tokens/s$' errors || fail "no speed: $(<errors)"
cat >prompt <<'TEXT'

Create a concise memory summary for future dialogue turns.
[PREVIOUS MEMORY]
{
  "narrative": "",
  "structured": {
    "goal": "",
    "established_facts": [],
    "current_focus": "",
    "unresolved_questions": [],
    "decisions": [],
    "open_problems": []
  }
}
[RECENT TURNS]
User: I want to see Kraków. What does a hotel cost there?
Assistant: A hotel costs 90 euro.
User: Let's take it. When do trains leave?
[ACTIVE DOCUMENT]
{
  "file_name": "a.txt",
  "doc_summary": "About trains."
}
Return a concise summary in plain English.
TEXT
system="You are a session-memory summarization model. Summarize only durable and useful information for future turns. Always \
include the user's current focus and latest intent when important. Do not invent facts."
content=$(sed 's/"/\\"/g' prompt | awk '{ printf "%s\\n", $0 }')
printf '{"messages": [{"role": "system", "content": "%s"}, {"role": "user", "content": "%s"}]}\n' "$system" "$content" >messages.jsonl
"$adamem" generate --model model --dtype float32 --max-new-tokens 8 --input messages.jsonl >generated 2>errors
text=$(sed 's/^{"text": "\(.*\)", "ids": .*/\1/; s/^ *//; s/ *$//' generated)
[[ -n $text ]] || fail "adamem generate wrote nothing: the comparison proves nothing"
sed -n 's/^  "narrative": "\(.*\)",$/\1/p' output >narrative
[[ $(<narrative) == "$text" ]] || fail "the narrative is $(<narrative), generate wrote $text"
sed '/^  "narrative"/d' output >structure
sed '/^  "narrative"/d' expected.json >expected-structure
same "structure beside a narrative" structure expected-structure
for length in 200 400; do
    "$adamem" memory update --model model --max-new-tokens 4 --max-length "$length" --memory memory.json --turns turns.json \
        >output 2>errors
    grep -q 'the prompt was too long' errors || [[ $length == 400 ]] || fail "length $length: no word about the shortened prompt"
done

# Training data.
dialogues=$repository/tests/data/memory/dialogues.jsonl
synthesize=("$adamem" memory synthesize --format samsum)
"${synthesize[@]}" --input "$dialogues" --output a.jsonl >counts
"${synthesize[@]}" --input - <"$dialogues" >b.jsonl 2>counts2
same "generated data" a.jsonl b.jsonl
same "counts" counts counts2
"${synthesize[@]}" --input "$dialogues" --seed 43 --output c.jsonl >counts
if cmp -s a.jsonl c.jsonl; then fail "another seed gives the same data"; fi
"${synthesize[@]}" --input "$dialogues" --samples 2 --output d.jsonl >counts
head -n 2 a.jsonl >e.jsonl
same "--samples 2" d.jsonl e.jsonl
sed 's/"summary": /"prediction": /' a.jsonl >predictions.jsonl
"$adamem" memory recall --input predictions.jsonl --threshold 1 >output
grep -q '^{"recall": 1.0, ' output || fail "the summaries do not state their slots: $(<output)"
sed 's/"summary": "[^"\\]*/"prediction": "x/' a.jsonl | sed 's/"prediction": "x.*", "slots"/"prediction": "", "slots"/' >predictions.jsonl
"$adamem" memory recall --input predictions.jsonl >output
grep -q '^{"recall": 0.0, ' output || fail "empty summaries state something: $(<output)"
cat >prepare.cfg <<'CONFIG'
run = { output_dir = "run"; };
model = { path = "model"; };
lora = { target_modules = [ "all-linear" ]; };
data = { train = ( { path = "a.jsonl"; format = "memory"; } ); };
CONFIG
"$adamem" prepare --config prepare.cfg >output 2>errors || fail "prepare refuses generated data: $(<errors)"
echo "adamem memory: all as expected"
