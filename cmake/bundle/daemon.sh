#!/bin/sh
# mpirun starts this on the other machines.
set -eu
root=$(dirname "$(dirname "$(readlink -f "$0")")")
# shellcheck source=cmake/bundle/environment.sh disable=SC1091
. "$root/libexec/environment.sh"
exec /lib64/ld-linux-x86-64.so.2 --library-path "$root/lib" "$root/libexec/@DAEMON@" "$@"
