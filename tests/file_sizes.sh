#!/bin/bash
# Checks that the repository stays quick to clone: no file above 20 MB, all test data together below 15 MB.
#
#   tests/file_sizes.sh [ROOT]
#
# First proves on planted files that it would find them.
set -euo pipefail
root=${1:-$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)}
file_limit=20000000
data_limit=15000000

# Prints what is too large in the folder it stands in: what git knows or would add, else all files.
too_large() {
    { git ls-files -z --cached --others --exclude-standard 2>/dev/null || find . \( -name .git -o -name 'build*' \) -prune -o -type f -printf '%P\0'; } |
        { xargs -0 -r stat --printf '%s %n\n' -- 2>/dev/null || true; } | # a file deleted but not yet committed is no matter
        awk -v file_limit=$file_limit -v data_limit=$data_limit '
            { name = substr($0, index($0, " ") + 1) }
            $1 > file_limit { printf "%s: %d bytes; a file may have %d\n", name, $1, file_limit }
            name ~ /^tests\/(.*\/)?data\// { data += $1 }
            END { if (data >= data_limit) printf "tests: %d bytes of data; all data together must stay below %d\n", data, data_limit }'
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# planted EXPECTED-COUNT SIZE FILE [SIZE FILE]...
planted() {
    local expected=$1 found tree=$scratch/tree
    shift
    rm -rf "$tree"
    while (($#)); do
        mkdir -p "$tree/$(dirname "$2")"
        truncate -s "$1" "$tree/$2"
        shift 2
    done
    # git must not look for a repository above the scratch folder
    found=$(cd "$tree" && GIT_CEILING_DIRECTORIES=$scratch too_large | wc -l)
    if [[ $found != "$expected" ]]; then
        echo "self-test: found $found, expected $expected" >&2
        exit 1
    fi
}

planted 1 20000001 "io/large file.c"
planted 1 8000000 tests/data/a 7000000 tests/parity/data/b
planted 2 20000001 tests/data/a
planted 0 20000000 docs/a 14999999 tests/data/a

cd "$root"
found=$(too_large)
if [[ -n $found ]]; then
    printf '%s\n' "$found"
    exit 1
fi
echo "file sizes: none too large"
