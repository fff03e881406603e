# shellcheck shell=sh
# Sourced by the bundle's wrappers with $root set. Only the shell and getconf: a bare machine has little else.
: "${root:?}"
needed_glibc=@GLIBC@

found_glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null || ldd --version 2>/dev/null) || found_glibc=
found_glibc=${found_glibc%%
*}
found_glibc=${found_glibc##* }
case $found_glibc in
2.*) found_minor=${found_glibc#2.} found_minor=${found_minor%%[!0-9]*} ;;
*) found_minor=0 ;;
esac
if [ "${found_minor:-0}" -lt "${needed_glibc#2.}" ]; then
    echo "adamem: glibc $needed_glibc or later is needed, this machine has ${found_glibc:-none}" >&2
    exit 1
fi

# Open MPI, PMIx and PRRTE look for their parts where they were configured, unless told.
for software in OPAL PMIX PRTE; do
    case $software in
    OPAL) folder=openmpi ;;
    PMIX) folder=pmix ;;
    PRTE) folder=prte ;;
    esac
    for setting in "PREFIX=$root" "EXEC_PREFIX=$root" "BINDIR=$root/bin" "LIBDIR=$root/lib" "SYSCONFDIR=$root/etc" \
        "DATADIR=$root/share" "PKGLIBDIR=$root/lib/$folder" "PKGDATADIR=$root/share/$folder"; do
        export "${software}_$setting"
    done
done
export HWLOC_PLUGINS_PATH="$root/lib/hwloc" # the machine's own may be of another version; we need none
case :$PATH: in
*":$root:"*) ;;
*) export PATH="$root:$PATH" ;;
esac

# library_path FIRST: FIRST, then the folders of CUDA's libraries.
library_path() {
    path=$1${ADAMEM_CUDA_LIBRARY_PATH:+:$ADAMEM_CUDA_LIBRARY_PATH}${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    for folder in /usr/local/cuda*/lib64; do
        if [ -d "$folder" ]; then path=$path:$folder; fi
    done
    echo "$path"
}
