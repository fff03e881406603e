#!/bin/sh
# Starts adamem with the libraries of this folder.
set -eu
root=$(dirname "$(readlink -f "$0")")
# shellcheck source=cmake/bundle/environment.sh disable=SC1091
. "$root/libexec/environment.sh"
LD_LIBRARY_PATH=$(library_path "$root/lib")
export LD_LIBRARY_PATH
missing=$(LD_TRACE_LOADED_OBJECTS=1 "$root/libexec/adamem" 2>&1) || true # what ldd does
case $missing in
*' => not found'*)
    missing=${missing%%' => not found'*}
    missing=${missing##*[!A-Za-z0-9._+-]}
    echo "adamem: $missing is not found: set ADAMEM_CUDA_LIBRARY_PATH to the folder that has it" >&2
    exit 1
    ;;
esac
exec "$root/libexec/adamem" "$@"
