#!/bin/sh
# Starts Open MPI's launcher with the libraries of this folder, which what it starts (ssh, srun) must not see.
set -eu
root=$(dirname "$(readlink -f "$0")")
# shellcheck source=cmake/bundle/environment.sh disable=SC1091
. "$root/libexec/environment.sh"
export PRTE_MCA_schizo_proxy=ompi # prterun, where it is the launcher, then takes mpirun's options
# Without ssh there is this machine only (or Slurm); Open MPI 4 would end with an error instead.
if ! command -v ssh >/dev/null && ! command -v rsh >/dev/null && [ -z "${OMPI_MCA_plm_rsh_agent:-}" ]; then
    export OMPI_MCA_plm="${OMPI_MCA_plm:-^rsh}"
fi
exec /lib64/ld-linux-x86-64.so.2 --library-path "$root/lib" "$root/bin/@LAUNCHER@" "$@"
