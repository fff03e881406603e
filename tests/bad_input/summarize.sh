#!/bin/bash
# Broken input to adamem summarize: the message names file, line or member.
#
#   tests/bad_input/summarize.sh ADAMEM
set -euo pipefail
adamem=$1
# shellcheck source=tests/bad_input/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

make_chatty
echo '{"id": 1, "document": "It rained."}' >good.jsonl
summarize=(summarize --model chatty --max-new-tokens 4)
good=("${summarize[@]}" --input good.jsonl)

# refuse_line WHAT PATTERN LINE: as the second line of the input.
refuse_line() {
    printf '%s\n' '{"id": 1, "document": "It rained."}' "$3" >bad.jsonl
    refuse "$1" "bad.jsonl:2: $2" "${summarize[@]}" --input bad.jsonl --output new.jsonl --intermediate parts.jsonl
}
refuse_template() { # WHAT PATTERN CONTENT
    printf '%s\n' "$3" >template.txt
    refuse "$1" "template.txt: $2" "${good[@]}" --prompt-template template.txt
    refuse "$1 for reduction" "template.txt: $2" "${good[@]}" --reduce-template template.txt
}

accept "a document" "${good[@]}" --output output.jsonl --intermediate parts.jsonl
rm output.jsonl parts.jsonl
accept "help" summarize --help
refuse "unknown option" 'summarize: unknown option --chunk-tokenz; the nearest is --chunk-tokens' "${good[@]}" --chunk-tokenz 100
refuse "no model" 'summarize: give --model DIR or --checkpoint PATH' summarize --input good.jsonl
refuse "no input" 'summarize: give --input FILE' "${summarize[@]}"
refuse "style" 'summarize: --style: "chatty" is not chat, plain or qwen_sum' "${good[@]}" --style chatty
refuse "small chunks" '--chunk-tokens must be at least 64' "${good[@]}" --chunk-tokens 63
refuse "no chunks" '--chunk-tokens must be at least 64' "${good[@]}" --chunk-tokens 0
refuse "large chunks" 'window of [0-9]+ tokens has room for chunks of [0-9]+ beside .* wanted: 1000000' "${good[@]}" --chunk-tokens 1000000
refuse "overlap" 'an overlap of 51 tokens is more than half of a chunk of 100' "${good[@]}" --chunk-tokens 100 --overlap-tokens 51
refuse "new tokens" '--max-new-tokens must be at least 1' "${good[@]}" --max-new-tokens 0
refuse "too many new tokens" 'has room for chunks of 0 beside' "${good[@]}" --max-new-tokens 1000000
refuse "batch" '--batch-size must be at least 1' "${good[@]}" --batch-size 0
refuse "temperature" 'summarize: .*temperature' "${good[@]}" --temperature -1
refuse "both to standard output" '--output and --intermediate are both "-"' "${good[@]}" --intermediate -
refuse "no such input" 'nowhere.jsonl: cannot' "${summarize[@]}" --input nowhere.jsonl
refuse "no such template" 'nowhere.txt: cannot' "${good[@]}" --prompt-template nowhere.txt
refuse "no tokenizer" 'model: holds no tokenizer' summarize --model model --input good.jsonl --max-new-tokens 4
refuse_template "no field" 'the field \{document\} must be there once, found 0 times' 'Summarize!'
refuse_template "two fields" 'the field \{document\} must be there once, found 2 times' '{document} {document}'
refuse_template "another field" 'unknown field \{article\}' '{article}'
refuse_line "no JSON" 'column' '{'
refuse_line "no id" '"id" is missing' '{"document": "a"}'
refuse_line "id" '"id" must be a string or a whole number, found array' '{"id": [1], "document": "a"}'
refuse_line "no document" '"document" is missing' '{"id": 1, "text": "a"}'
refuse_line "document" '"document" must be a string, found integer' '{"id": 1, "document": 3}'

all_refused "summarize"
