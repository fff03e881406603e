#!/bin/bash
# Broken input to adamem judge: the message names file, line or member.
#
#   tests/bad_input/judge.sh ADAMEM
set -euo pipefail
adamem=$1
# shellcheck source=tests/bad_input/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

make_chatty
line='{"question_id": "1", "question_type": "multi-session", "question": "Where?", "answer": "Here", "hypothesis": "There"}'
echo "$line" >questions.jsonl
echo '{"text": "There"}' >replies.jsonl
judge=(judge --task longmemeval --input questions.jsonl)

# refuse_lines WHAT PATTERN FILE CONTENT ARGUMENTS...: with FILE holding CONTENT.
refuse_lines() {
    local what=$1 pattern=$2 file=$3 content=$4 good
    shift 4
    good=$(<"$file")
    printf '%s\n' "$content" >"$file"
    refuse "$what" "$pattern" "$@"
    printf '%s\n' "$good" >"$file"
}

accept "with a model" "${judge[@]}" --model chatty --output judgements.jsonl
accept "hypotheses" "${judge[@]}" --generated replies.jsonl --hypotheses hypotheses.jsonl
accept "help" judge --help
refuse "unknown option" '^error: judge: unknown option --heelp; the nearest is --help' judge --heelp
refuse "operand" 'judge: unexpected argument "extra"' judge extra
refuse "no task" '--task knowledge_edit\|longmemeval is missing' judge --input questions.jsonl --model chatty
refuse "task" 'judge: task "longmem" is not knowledge_edit or longmemeval' judge --task longmem --input questions.jsonl --model chatty
refuse "no input" '--input FILE is missing' judge --task longmemeval --model chatty
refuse "nothing to do" 'give --model DIR, --checkpoint PATH or --hypotheses FILE' "${judge[@]}"
refuse "tokens" '--max-new-tokens must be at least 1' "${judge[@]}" --model chatty --max-new-tokens 0
refuse "batch" '--batch-size must be at least 1' "${judge[@]}" --model chatty --batch-size 0
refuse "standard input twice" 'cannot both be standard input' judge --task longmemeval --input - --generated - --hypotheses h
refuse "standard output twice" '--hypotheses - needs --output FILE' "${judge[@]}" --model chatty --hypotheses -
refuse "no such input" 'nowhere.jsonl: cannot' judge --task longmemeval --input nowhere.jsonl --hypotheses h
refuse "no such replies" 'nowhere.jsonl: cannot' "${judge[@]}" --generated nowhere.jsonl --hypotheses h
refuse "no such prompts" 'nowhere/judge_longmemeval.txt: cannot' "${judge[@]}" --model chatty --prompts nowhere
refuse "no such model" 'nowhere' "${judge[@]}" --model nowhere
refuse "no tokenizer" 'model: holds no tokenizer' "${judge[@]}" --model model
cp -r "$repository/configs/prompts" prompts
echo '{queston}' >prompts/judge_longmemeval.txt
refuse "prompt field" 'prompts/judge_longmemeval.txt: unknown field \{queston\}; .*hypothesis' "${judge[@]}" --model chatty --prompts prompts
refuse_lines "empty" 'questions.jsonl: no line' questions.jsonl '' "${judge[@]}" --model chatty --output new.jsonl
refuse_lines "no JSON" 'questions.jsonl:2: column' questions.jsonl "$line"$'\n{' "${judge[@]}" --model chatty --output new.jsonl
refuse_lines "type" 'questions.jsonl:1: "question_type" is "x"; types: single-session-user' questions.jsonl \
    "${line/multi-session/x}" "${judge[@]}" --hypotheses h
refuse_lines "answer" 'questions.jsonl:1: "answer" must be a string or a number, found null' questions.jsonl \
    "${line/\"Here\"/null}" "${judge[@]}" --hypotheses h
refuse_lines "no hypothesis" 'questions.jsonl:1: "hypothesis" is missing' questions.jsonl "${line/hypothesis/hypo}" "${judge[@]}" \
    --hypotheses h
refuse_lines "id twice" 'questions.jsonl:2: "question_id" "1" stands in line 1 too' questions.jsonl "$line"$'\n'"$line" \
    "${judge[@]}" --hypotheses h
refuse_lines "too few replies" 'replies.jsonl ends after 0 lines, questions.jsonl goes on' replies.jsonl '' "${judge[@]}" \
    --generated replies.jsonl --hypotheses h
refuse_lines "too many replies" 'questions.jsonl ends after 1 lines, replies.jsonl goes on' replies.jsonl \
    $'{"text": "a"}\n{"text": "b"}' "${judge[@]}" --generated replies.jsonl --hypotheses h
refuse_lines "another id" 'replies.jsonl:1: "question_id" is "2", but "1" in the input' replies.jsonl \
    '{"question_id": "2", "hypothesis": "a"}' "${judge[@]}" --generated replies.jsonl --hypotheses h
refuse_lines "no text" 'replies.jsonl:1: "text" is missing' replies.jsonl '{"ids": []}' "${judge[@]}" --generated replies.jsonl \
    --hypotheses h
"$adamem" init-model --preset tiny --output narrow --tokenizer "$repository/tests/data/tokenizer-small" \
    --set num_hidden_layers=1 --set max_position_embeddings=64 2>/dev/null
refuse "too long" 'questions.jsonl:1: the prompt has [0-9]+ tokens, the model.s window takes at most' "${judge[@]}" --model narrow \
    --output new.jsonl

all_refused "judge"
