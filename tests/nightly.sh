#!/bin/bash
# What takes too long for every change: run it every night, on a machine that is otherwise idle.
#
#   tests/nightly.sh BUILD_FOLDER [SECTION]...
#
# BUILD_FOLDER holds the built program. Without SECTIONs all are run. Each section prints its line when it ends; its output
# goes to BUILD_FOLDER/nightly/SECTION.log. A table comes at the end; the exit status is the number of failed sections.
set -euo pipefail
tests=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# One function per section: its output is the log, its status the result (77: skipped), its last line the table's remark.
# shellcheck disable=SC2317 # called by name
{
    section_same_bits_float32() { "$tests/same_bits/extensive.sh" "$build/adamem" float32; }
    section_same_bits_bfloat16() { "$tests/same_bits/extensive.sh" "$build/adamem" bfloat16; }
}

[[ $# -ge 1 ]] || { sed -n '2,/^set/p' "${BASH_SOURCE[0]}" | sed -n 's/^# \{0,1\}//p' >&2 && exit 2; }
build=$(cd "$1" && pwd)
shift
mapfile -t all < <(declare -F | sed -n 's/^declare -f section_//p')
selected=("${@:-${all[@]}}")
mkdir -p "$build/nightly"
table=()
failed=0

for section in "${selected[@]}"; do
    declare -F "section_$section" >/dev/null || { echo "nightly.sh: no section $section; there are ${all[*]}" >&2 && exit 2; }
    log=$build/nightly/$section.log
    started=$SECONDS
    status=0
    # A shell of its own: errexit would not work in a function whose status is looked at.
    (set -e; "section_$section") >"$log" 2>&1 &
    wait $! || status=$?
    case $status in
    0) result=passed ;;
    77) result=skipped ;;
    *) result=FAILED && failed=$((failed + 1)) ;;
    esac
    line=$(printf '%-24s %-8s %6d s  %s' "$section" "$result" $((SECONDS - started)) "$(tail -n 1 "$log")")
    echo "$line"
    table+=("$line")
done

printf '\n%-24s %-8s %8s  %s\n' section result time remark
printf '%s\n' "${table[@]}"
exit "$failed"
