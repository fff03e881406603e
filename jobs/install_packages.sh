#!/usr/bin/env bash
# Installs the Debian or Ubuntu packages that are missing: jobs/install_packages.sh [--tests].
# Without root it says what to install and ends with status 2. Prints the seconds it took.
set -euo pipefail

packages=(gcc g++ cmake ninja-build pkg-config libopenmpi-dev openmpi-bin libhdf5-dev libconfig-dev libdnnl-dev
          libpcre2-dev libutf8proc-dev libjansson-dev zlib1g-dev libzstd-dev zstd gnuplot-nox)
[ "${1:-}" = "--tests" ] && packages+=(libcmocka-dev shellcheck git slurm-wlm munge iproute2)

missing=()
for package in "${packages[@]}"; do
  # A package may be there under another version's name (gnuplot-x11 for gnuplot-nox): ask for its program.
  [ "$package" = gnuplot-nox ] && command -v gnuplot >/dev/null && continue
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if ! sudo -n true 2>/dev/null; then
    echo "missing packages; run: sudo apt-get install -y --no-install-recommends ${missing[*]}" >&2
    exit 2
  fi
  as_root=(sudo)
fi
echo "installing ${missing[*]}"
start=$SECONDS
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
echo "packages: $((SECONDS - start)) s"
