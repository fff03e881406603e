#!/bin/sh
# Runs the tests that need a GPU: gpu.sh [--output FILE].
set -eu
root=$(dirname "$(readlink -f "$0")")
# shellcheck source=cmake/bundle/environment.sh disable=SC1091
. "$root/libexec/environment.sh"
LD_LIBRARY_PATH=$(library_path "$root/gpu")
export LD_LIBRARY_PATH
exec bash "$root/tests/gpu.sh" --build "$root" "$@"
