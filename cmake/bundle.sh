#!/usr/bin/env bash
# Makes one tarball that runs on a bare machine: the program, Open MPI's launcher, and every shared library they need.
#
#   bundle.sh --program FILE --mpirun FILE --output NAME.tar.gz [--gpu-tests FOLDER [--nccl-test FILE]]
#
# What stays out comes from the machine: glibc, which must fit the kernel's and the machine's own settings; the GPU driver;
# and CUDA's libraries, ten times as large as all the rest. Wrappers find everything relative to themselves: run paths alone
# cannot, because the distribution's libmpi carries one of its own that goes first. Layout below NAME/:
#   adamem mpirun      wrappers             bin/    the launcher, and a wrapper for its daemon elsewhere
#   libexec/           programs             lib/    libraries; openmpi/ and pmix/ hold the components
#   share/             help files, licences gpu/    the tests that need a GPU; gpu.sh runs them (--gpu-tests)
set -euo pipefail
source_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
limit_bytes=40000000
suite_limit_bytes=64000000 # with the GPU tests, which hold the kernels several times

fail() {
    echo "bundle.sh: $*" >&2
    exit 1
}

program='' mpirun='' output='' gpu_tests='' nccl_test=''
while (($#)); do
    (($# > 1)) || fail "$1 needs a value"
    case $1 in
    --program) program=$2 ;;
    --mpirun) mpirun=$2 ;;
    --output) output=$2 ;;
    --gpu-tests) gpu_tests=$2 ;;
    --nccl-test) nccl_test=$2 ;;
    *) fail "unknown option $1 (known: --program, --mpirun, --output, --gpu-tests, --nccl-test)" ;;
    esac
    shift 2
done
[[ -x $program ]] || fail "--program: '$program' is no program"
[[ -x $mpirun ]] || fail "--mpirun: '$mpirun' is no program"
[[ $output == *.tar.gz ]] || fail "--output: '$output' should end in .tar.gz"
ompi_info=$(dirname "$mpirun")/ompi_info
[[ -x $ompi_info ]] || fail "$ompi_info is missing: only Open MPI can be bundled"

name=$(basename "$output" .tar.gz)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
tree=$scratch/$name
mkdir -p "$tree"/{bin,lib/openmpi,lib/pmix,libexec,share/licenses,etc}

# ---- Libraries

# The machine's own: glibc, the GPU driver; CUDA's toolkit.
is_foreign() {
    case $1 in
    ld-linux* | libc.so.* | libm.so.* | libmvec.so.* | libpthread.so.* | libdl.so.* | librt.so.* | libresolv.so.* | libutil.so.* | \
        libnsl.so.* | libanl.so.* | libnss_* | libcuda.so.* | libnvidia-*) ;;
    libcublas* | libcudart* | libcudnn* | libnccl* | libnvrtc* | libnvJitLink*) ;;
    *) false ;;
    esac
}

# copy_file FILE TARGET: what it needs comes along later, see copy_libraries.
copied=()
copy_file() {
    cp -L "$1" "$2"
    copied+=("$1")
}

# What the copied files need, transitively, under the names by which it is asked for. One visit: a slow one.
copy_libraries() {
    local library path
    ldd "${copied[@]}" >"$scratch/ldd" || fail "ldd cannot read a file that was copied"
    # "libNAME => PATH (ADDRESS)" or "libNAME => not found"
    awk '$2 == "=>" && !seen[$1 $3]++ { print $1, $3 }' "$scratch/ldd" >"$scratch/needed"
    while read -r library path; do
        if is_foreign "$library"; then continue; fi
        [[ $path != not ]] || fail "$library is needed and not found"
        cp -L "$path" "$tree/lib/$library"
        realpath "$path" >>"$scratch/originals"
    done <"$scratch/needed"
    for path in "${copied[@]}"; do realpath "$path"; done >>"$scratch/originals"
}

# library_folder NAME: where the library lives of which a copied file needs some version; nothing if none does.
library_folder() {
    local path naming
    mapfile -t naming < <(grep -lF "$1." "${copied[@]}")
    ((${#naming[@]})) || return 0
    path=$(ldd "${naming[@]}" | awk -v name="$1" 'index($1, name ".so") == 1 && $3 ~ /^\// && !found { found = $3 } END { print found }')
    [[ -z $path ]] || dirname "$(realpath "$path")"
}

# Where Open MPI keeps BINDIR, PKGLIBDIR, ...
open_mpi_folder() {
    local folder
    folder=$("$ompi_info" --parsable --path "$1" | sed -n "s/^path:$1://p")
    [[ -d $folder ]] || fail "ompi_info names no folder $1"
    echo "$folder"
}

# Components are plugins. Left out: those for interconnects that bring large libraries of their own (between GPUs NCCL
# carries the sums; between machines MPI uses TCP), those for tools, and those of OpenSHMEM.
copy_components() { # FOLDER PATTERN TARGET
    local component
    for component in "$1"/$2; do
        [[ -e $component ]] || continue
        case ${component##*/} in
        *_ucx.so | *_ofi.so | *_psm.so | *_psm2.so | *_openib.so | *_usnic.so | *_uct.so | *_monitoring.so) continue ;;
        mca_atomic_* | mca_memheap_* | mca_scoll_* | mca_spml_* | mca_sshmem_*) continue ;;
        esac
        copy_file "$component" "$3/"
    done
}

# copy_help TARGET FOLDER...: the messages from the first folder that has some.
copy_help() {
    local target=$1 folder
    shift
    for folder in "$@"; do
        compgen -G "$folder/help-*.txt" >/dev/null || continue
        mkdir -p "$target" && cp -L "$folder"/help-*.txt "$target/"
        return
    done
    fail "no help files in $*"
}

copy_open_mpi() {
    local bin launcher daemon library
    bin=$(open_mpi_folder bindir)
    # Up to version 4 orterun and orted; from 5 on mpirun is a front for PRRTE's prterun and prted.
    if [[ -x $bin/orterun ]]; then launcher=orterun daemon=orted; else launcher=prterun daemon=prted; fi
    [[ -x $bin/$launcher && -x $bin/$daemon ]] || fail "$bin has neither orterun and orted nor prterun and prted"
    # mpirun takes the folder above its own as the one to look in on other machines, hence bin/.
    copy_file "$bin/$launcher" "$tree/bin/$launcher"
    copy_file "$bin/$daemon" "$tree/libexec/$daemon"
    copy_components "$(open_mpi_folder pkglibdir)" 'mca_*.so' "$tree/lib/openmpi"
    copy_help "$tree/share/openmpi" "$(open_mpi_folder pkgdatadir)"

    library=$(library_folder libpmix)
    [[ -n $library ]] || fail "no component of Open MPI needs PMIx: its version is too old"
    copy_components "$library/pmix" 'pmix_mca_*.so' "$tree/lib/pmix"
    copy_help "$tree/share/pmix" "$library/../share/pmix" /usr/share/pmix
    library=$(library_folder libprrte)
    if [[ -n $library ]]; then
        mkdir -p "$tree/lib/prte"
        copy_components "$library/prte" 'prte_mca_*.so' "$tree/lib/prte"
        copy_help "$tree/share/prte" "$library/../share/prte" /usr/share/prte
    fi
    : >"$tree/etc/openmpi-mca-params.conf"
    : >"$tree/etc/pmix-mca-params.conf"
    : >"$tree/etc/prte-mca-params.conf"
    sed -e "s/@LAUNCHER@/$launcher/" "$source_root/cmake/bundle/mpirun.sh" >"$tree/mpirun"
    sed -e "s/@DAEMON@/$daemon/" "$source_root/cmake/bundle/daemon.sh" >"$tree/bin/$daemon"
}

# What we pass on of others comes with its licence, where the distribution keeps one.
copy_licences() {
    cp "$source_root/LICENSE" "$tree/LICENSE"
    command -v dpkg-query >/dev/null || return 0
    local file package
    sort -u "$scratch/originals" | while read -r file; do
        { dpkg-query -S "$file" || dpkg-query -S "${file#/usr}" || true; } 2>/dev/null
    done | sed 's/[:,].*//' | sort -u | while read -r package; do
        file=/usr/share/doc/$package/copyright
        if [[ -e $file ]]; then cp -L "$file" "$tree/share/licenses/$package"; fi
    done
}

copy_gpu_tests() {
    local file
    mkdir -p "$tree/gpu" "$tree/tests"
    cp "$source_root/tests/gpu.sh" "$tree/tests/gpu.sh"
    # What tests/gpu.sh runs, and what that reads.
    mkdir -p "$tree"/tests/{cuda,same_bits,parity} "$tree/jobs/data"
    cp "$source_root"/tests/cuda/{program,memory}.sh "$tree/tests/cuda/"
    cp "$source_root/tests/same_bits/common.sh" "$tree/tests/same_bits/"
    cp -r "$source_root/tests/parity/data" "$tree/tests/parity/"
    cp "$source_root/jobs/data/text-train.jsonl.gz" "$tree/jobs/data/"
    git -C "$source_root" rev-parse HEAD >"$tree/COMMIT" 2>/dev/null || rm -f "$tree/COMMIT"
    [[ -z $nccl_test ]] || copy_file "$nccl_test" "$tree/gpu/"
    for file in "$gpu_tests"/*; do
        if [[ ! -f $file ]]; then continue; fi
        if [[ $file == *.so* ]]; then cp -L "$file" "$tree/gpu/"; else copy_file "$file" "$tree/gpu/"; fi
    done
    for file in gomp.so.1 gcc_s.so.1; do ln -s "../lib/lib$file" "$tree/gpu/lib$file"; done # the tests look beside themselves
    cp "$source_root/cmake/bundle/gpu.sh" "$tree/gpu.sh"
    chmod 755 "$tree/gpu.sh"
}

# ---- The rest

# The newest glibc that any file asks for.
needed_glibc() {
    find "$tree" -type f \( -path '*/lib/*' -o -path '*/bin/*' -o -path '*/libexec/*' -o -path '*/gpu/*' \) -print0 |
        { xargs -0 objdump -T 2>/dev/null || true; } | grep -o 'GLIBC_2\.[0-9]*' | sort -uV | tail -n 1 | sed 's/GLIBC_//'
}

copy_file "$program" "$tree/libexec/adamem"
copy_open_mpi
[[ -z $gpu_tests ]] || { copy_gpu_tests && limit_bytes=$suite_limit_bytes; }
copy_libraries
copy_licences
glibc=$(needed_glibc)
[[ -n $glibc ]] || fail "no file asks for a version of glibc, which cannot be"
if ldd "$program" | grep -q libcublasLt; then
    cuda="; for GPUs NVIDIA's driver and the libraries of CUDA $(ldd "$program" | sed -n 's/.*libcublasLt\.so\.\([0-9]*\) .*/\1/p') (cuBLAS; NCCL for several GPUs) in /usr/local/cuda*/lib64, or where ADAMEM_CUDA_LIBRARY_PATH=FOLDER:FOLDER says (of Python wheels: site-packages/nvidia/*/lib)"
else
    cuda='; this bundle was built without CUDA'
fi
sed -e "s/@GLIBC@/$glibc/" "$source_root/cmake/bundle/environment.sh" >"$tree/libexec/environment.sh"
cp "$source_root/cmake/bundle/adamem.sh" "$tree/adamem"
chmod 755 "$tree"/adamem "$tree"/mpirun "$tree"/bin/*
cat >"$tree/README.txt" <<TEXT
Unpack anywhere (for several machines at the same path on all, one without blanks): tar xf $name.tar.gz
Run: $name/adamem --help; on several ranks $name/mpirun -np 2 $name/adamem train --config FILE
The machine must have: Linux on $(uname -m), glibc $glibc or later$cuda.
TEXT

# Same input, same bytes: no times, owners or order of the folder.
tar -C "$scratch" --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -cf - "$name" | gzip -9n >"$output.part"
size=$(stat -c %s "$output.part")
((size <= limit_bytes)) || { rm -f "$output.part" && fail "$output would have $size bytes, more than $limit_bytes"; }
mv "$output.part" "$output"
echo "$output: $((size / 1000000)).$(printf %02d $((size / 10000 % 100))) MB, needs glibc $glibc"
