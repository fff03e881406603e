#!/usr/bin/env bash
# Does the bundle run on a bare machine? Unpacks it into a file system that holds glibc, a shell and a handful of small
# programs, nothing else, trains there on two ranks, and wants the bits of the normal build.
#
#   bundle.sh BUNDLE.tar.gz ADAMEM [ROOT]
#
# ADAMEM is the program that the normal build made. ROOT, a Debian made by debootstrap for example, replaces the file
# system made here. Needs the right to mount (root, or user namespaces); without it the status is 77, not run.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
parity=$here/../parity/data
bundle=$(realpath "${1:?usage: bundle.sh BUNDLE.tar.gz ADAMEM [ROOT]}")
adamem=$(realpath "${2:?usage: bundle.sh BUNDLE.tar.gz ADAMEM [ROOT]}")
given_root=${3:-}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 PRTE_ALLOW_RUN_AS_ROOT=1 PRTE_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
work=$scratch/work # what the bare machine sees as /work
cuda='' # the folder of CUDA's libraries, which it sees as /cuda
mkdir "$work"

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

if ((EUID == 0)); then namespace=(unshare --mount); else namespace=(unshare --user --map-root-user --mount); fi
"${namespace[@]}" mount -t tmpfs none /mnt 2>/dev/null || { echo "not run: this machine does not let us mount" && exit 77; }

# copy_with_libraries ROOT FILE...: only glibc's libraries come along; a program that needs others is a mistake of this script.
copy_with_libraries() {
    local root=$1 file library
    shift
    for file in "$@"; do
        cp -L "$(command -v "$file")" "$root/bin/"
        while read -r library; do
            case ${library##*/} in
            libc.so.* | libm.so.* | libpthread.so.* | libdl.so.* | librt.so.* | ld-linux*) ;;
            *) fail "$file needs $library" ;;
            esac
            mkdir -p "$root${library%/*}" && cp -L "$library" "$root$library"
        done < <(ldd "$(command -v "$file")" | grep -o '/[^ ]*')
    done
}

make_root() {
    local root=$1 library folder
    mkdir -p "$root"/{bin,dev,proc,sys,tmp,etc,root}
    copy_with_libraries "$root" sh getconf readlink dirname env uname timeout
    folder=$(dirname "$(ldd /bin/sh | grep -o '/[^ ]*libc\.so\.6')")
    for library in libm.so.6 libmvec.so.1 libpthread.so.0 libdl.so.2 librt.so.1 libutil.so.1 libresolv.so.2 libnss_files.so.2; do
        if [[ -e $folder/$library ]]; then cp -L "$folder/$library" "$root$folder/"; fi
    done
    echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
    echo '127.0.0.1 localhost' >"$root/etc/hosts"
}

# bare COMMAND...: in the bare file system, in /work. Its mounts end with the namespace.
bare() {
    # shellcheck disable=SC2016 # expanded by the shell inside
    "${namespace[@]}" sh -c '
        set -e
        root=$1 work=$2
        for folder in dev proc sys; do mount --rbind "/$folder" "$root/$folder"; done
        mkdir -p "$root/work"
        mount --bind "$work" "$root/work"
        if [ -n "$3" ]; then mkdir -p "$root/cuda" && mount --bind "$3" "$root/cuda"; fi
        shift 3
        exec chroot "$root" /bin/sh -c "cd /work && exec \"\$@\"" sh "$@"' \
        sh "$root" "$work" "$cuda" env -i ${cuda:+ADAMEM_CUDA_LIBRARY_PATH=/cuda} PATH=/bin:/usr/bin HOME=/root TMPDIR=/tmp OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive \
        OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 PRTE_ALLOW_RUN_AS_ROOT=1 PRTE_ALLOW_RUN_AS_ROOT_CONFIRM=1 "$@"
}

digest() {
    "$adamem" inspect --json "$1" | grep -o '"digest": "[0-9a-f]*"'
}

# train_options MODEL DATA OUTPUT
train_options() {
    options=(train --set "model.path=$1" --set model.dtype=float32 --set "run.output_dir=$3" --set run.backend=cpu --set run.seed=7
        --set "data.train=({path=\"$2\";format=\"tokens\";})" --set data.max_zero_label_fraction=1.0
        --set 'lora.target_modules=["all-linear"]' --set training.max_steps=20 --set training.per_device_train_batch_size=2
        --set training.global_batch_size=4 --set training.learning_rate=1e-2)
}

if [[ -n $given_root ]]; then
    root=$given_root
else
    root=$scratch/root
    make_root "$root"
fi
# Any folder will do, one with a blank included.
place="some where/$(basename "$bundle" .tar.gz)"
mkdir "$work/some where"
tar -xf "$bundle" -C "$work/some where"
cp -r "$parity/tied_h64" "$parity/train20/train.jsonl" "$work/"

(($(stat -c %s "$bundle") <= 40000000)) || fail "the bundle is larger than 40 MB"
# What the test's claim rests on: nothing of ours is there.
# shellcheck disable=SC2016 # expanded by the shell inside
if bare sh -c 'for f in /usr/lib/*/libmpi.so* /usr/lib/*/libdnnl.so* /usr/lib/*/libhdf5* /bin/mpirun; do [ ! -e "$f" ] || exit 1; done'; then
    echo "bare machine: $(bare getconf GNU_LIBC_VERSION), no library of ours"
else
    fail "the bare machine has libraries of its own; this would show nothing"
fi

# Built with CUDA: its libraries come from the machine, and their absence is one line.
library=$(ldd "$adamem" | awk '$1 ~ /^libcublasLt/ { print $3 }')
if [[ -n $library ]]; then
    if bare "./$place/adamem" --version >"$scratch/log" 2>&1; then fail "the bare machine has libraries of CUDA"; fi
    [[ $(wc -l <"$scratch/log") == 1 && $(<"$scratch/log") == 'adamem: libcublasLt'*'ADAMEM_CUDA_LIBRARY_PATH'* ]] ||
        { cat "$scratch/log" >&2 && fail "the message about CUDA's libraries"; }
    echo "without CUDA's libraries: $(<"$scratch/log")"
    cuda=$(realpath "$(dirname "$library")")
fi

[[ $(bare "./$place/adamem" --version) == "$("$adamem" --version)" ]] || fail "adamem --version"
bare "./$place/adamem" info >"$scratch/info" || fail "adamem info"
[[ -s $scratch/info ]] || fail "adamem info says nothing"
bare "./$place/adamem" init-model --preset tiny --output /work/tiny >"$scratch/log" 2>&1 || { cat "$scratch/log" >&2 && fail "adamem init-model"; }
"$adamem" init-model --preset tiny --output "$scratch/tiny" >/dev/null 2>&1
cmp "$scratch/tiny/model.safetensors" "$work/tiny/model.safetensors" || fail "init-model wrote another model"
echo "version, info, init-model: good"

train_options tied_h64 train.jsonl run
bare "./$place/mpirun" --oversubscribe -np 2 "./$place/adamem" "${options[@]}" >"$scratch/log" 2>&1 ||
    { cat "$scratch/log" >&2 && fail "training on two ranks"; }
grep -qE '\b2 ranks' "$scratch/log" || { cat "$scratch/log" >&2 && fail "training did not run on two ranks"; }
if grep -iE 'component|help file|unable to open|mca_base' "$scratch/log"; then fail "Open MPI complains"; fi
(
    cd "$scratch"
    train_options "$parity/tied_h64" "$parity/train20/train.jsonl" "$scratch/normal"
    "$adamem" "${options[@]}" >"$scratch/normal.log" 2>&1 || { cat "$scratch/normal.log" >&2 && fail "training with the normal build"; }
)
[[ $(digest "$work/run/final.h5") == "$(digest "$scratch/normal/final.h5")" ]] || fail "the bundle trained other bits than the normal build"
echo "mpirun -np 2 train: the normal build's bits, $(digest "$work/run/final.h5")"

# Help files are found: a message of Open MPI instead of "could not find".
bare "./$place/mpirun" -np 2 ./no-such-program >"$scratch/log" 2>&1 && fail "mpirun should fail without a program"
if grep -qi 'sorry' "$scratch/log" || ! grep -q 'no-such-program' "$scratch/log"; then cat "$scratch/log" >&2 && fail "Open MPI's help files"; fi
echo "help files: good"

# Moved: it still runs. Open MPI's way of starting daemons cannot take a blank.
mv "$work/some where" "$work/elsewhere"
place=elsewhere/${place#*/}
# Another machine, as far as mpirun can see: its daemon is started as by ssh, in a new environment, on this one.
cat >"$work/agent" <<'AGENT'
#!/bin/sh
shift
echo started >>/work/daemons
exec env -i ${ADAMEM_CUDA_LIBRARY_PATH:+ADAMEM_CUDA_LIBRARY_PATH=/cuda} PATH=/bin HOME=/root TMPDIR=/tmp OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 sh -c "$*"
AGENT
chmod +x "$work/agent"
if [[ -e $work/$place/bin/prterun ]]; then agent=(--prtemca plm ssh --prtemca plm_ssh_agent); else agent=(--mca plm rsh --mca plm_rsh_agent); fi
train_options tied_h64 train.jsonl run-daemon
bare timeout 60 "./$place/mpirun" "${agent[@]}" /work/agent --host there:2 -np 2 "./$place/adamem" "${options[@]}" >"$scratch/log" 2>&1 ||
    { cat "$scratch/log" >&2 && fail "training on another machine"; }
[[ -s $work/daemons ]] || fail "no daemon was started"
[[ $(digest "$work/run-daemon/final.h5") == "$(digest "$scratch/normal/final.h5")" ]] || fail "started by the daemon: other bits"
echo "daemon: good"

# One line for a glibc that is too old.
sed -i 's/^needed_glibc=.*/needed_glibc=2.999/' "$work/$place/libexec/environment.sh"
for command in adamem mpirun; do
    if bare "./$place/$command" --version >"$scratch/log" 2>&1; then fail "$command accepted a glibc that is too old"; fi
    [[ $(wc -l <"$scratch/log") == 1 && $(<"$scratch/log") == *"glibc 2.999 or later is needed, this machine has 2."* ]] ||
        { cat "$scratch/log" >&2 && fail "$command: the message about glibc"; }
done
echo "old glibc: $(<"$scratch/log")"
