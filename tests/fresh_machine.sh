#!/bin/bash
# Does the README work on a machine that has nothing? Makes a minimal Debian in a temporary folder, clones this checkout
# into it and types the README's two commands there.
#
#   sudo tests/fresh_machine.sh [bookworm|trixie] [COMMAND...]
#
# COMMANDs (one argument each) replace the README's. What is not committed is not tested. Uses the host's apt mirror and
# proxy. Needs debootstrap and git, root, some 5 GB below TMPDIR; nothing outlives the script.
set -euo pipefail

readme_commands=('bash jobs/local.sh' 'bash tests/run.sh')
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

fail() {
    echo "fresh_machine.sh: $*" >&2
    exit 2
}

# The Debian mirror of the host's own sources; empty lets debootstrap choose.
host_mirror() {
    # shellcheck disable=SC2016 # the dollar signs are apt's
    apt-get indextargets --format '$(REPO_URI) $(COMPONENT) $(RELEASE) $(LABEL)' 'Identifier: Packages' 2>/dev/null |
        awk '$2 == "main" && $3 !~ /-/ && $4 == "Debian" { print $1; exit }'
}

# Nobody needs to see in a test's output where a company keeps its mirror.
without_host_names() {
    local expression='' name
    for name in "$@"; do
        name=${name#*://}
        name=${name##*@}
        name=${name%%[/:]*}
        [[ -n $name && $name != deb.debian.org ]] && expression+="s/${name//./\\.}/MIRROR/g;"
    done
    sed -u -e "$expression"
}

# apt's proxies, checks and certificates; a mirror behind https needs them from the first package on.
copy_apt_settings() {
    apt-config dump | grep -E '^Acquire::((http|https)::Proxy|Check-|Retries|ForceIPv)' >"$1/etc/apt/apt.conf.d/99host" || true
    if [[ -d /usr/local/share/ca-certificates && -n $(ls /usr/local/share/ca-certificates) ]]; then
        cp -rL /usr/local/share/ca-certificates "$1/usr/local/share/"
        [[ ! -x $1/usr/sbin/update-ca-certificates ]] || chroot "$1" update-ca-certificates >/dev/null 2>&1
    fi
    if [[ -d /etc/apt/auth.conf.d ]]; then cp -rL /etc/apt/auth.conf.d "$1/etc/apt/"; fi
    cp -L /etc/resolv.conf /etc/hosts "$1/etc/"
}

timed() { # WHAT COMMAND...
    local what=$1 start=$SECONDS status=0
    shift
    "$@" || status=$?
    echo "== $what: exit status $status, $((SECONDS - start)) s"
    return $status
}

make_system() { # TARGET SUITE MIRROR
    local options=(--variant=minbase)
    [[ $3 != https:* ]] || options+=(--include=ca-certificates)
    if ! debootstrap "${options[@]}" "$2" "$1" ${3:+"$3"} >"$1.log" 2>&1; then
        tail -n 5 "$1.log"
        return 1
    fi
    copy_apt_settings "$1" || return
    printf '#!/bin/sh\nexit 101\n' >"$1/usr/sbin/policy-rc.d" # packages must not start services here
    chmod +x "$1/usr/sbin/policy-rc.d"
}

type_command() { # TARGET COMMAND
    echo "== # $2"
    chroot "$1" /usr/bin/env -i HOME=/root TERM=dumb PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        /bin/bash -c "cd /root/adamem && $2" </dev/null
}

# Runs in name spaces of its own: its mounts are invisible outside and vanish with it, its processes are killed with it.
inside() { # TARGET SUITE MIRROR COMMAND...
    local target=$1 suite=$2 mirror=$3
    shift 3
    mount --make-rprivate /
    mount -t proc proc /proc # of this process name space
    timed "minimal $suite" make_system "$target" "$suite" "$mirror"
    mount -t proc proc "$target/proc"
    mount -t sysfs -o ro sysfs "$target/sys"
    mount --rbind /dev "$target/dev"
    [[ -d $target/dev/shm ]] && mount -t tmpfs tmpfs "$target/dev/shm"
    timed "clone" git clone -q --no-hardlinks "$checkout" "$target/root/adamem"
    local command
    for command in "$@"; do timed "$command" type_command "$target" "$command"; done
    echo "== size on disk: $(du -sxm "$target" | cut -f1) MB"
}

if [[ ${1:-} == --inside ]]; then # only called from below
    shift
    inside "$@"
    exit
fi

suite=${1:-bookworm}
[[ $suite == bookworm || $suite == trixie ]] || fail "usage: fresh_machine.sh [bookworm|trixie] [COMMAND...]"
commands=("${@:2}")
((EUID == 0)) || fail "needs root (chroot and mount)"
for program in debootstrap git unshare; do
    command -v $program >/dev/null || fail "$program is missing: apt-get install debootstrap git util-linux"
done
if ((${#commands[@]} == 0)); then
    commands=("${readme_commands[@]}")
    for command in "${commands[@]}"; do
        grep -qF "$command" "$checkout/README.md" || fail "the README does not tell to type '$command'"
    done
fi
[[ -z $(git -C "$checkout" status --porcelain) ]] || echo "note: changes that are not committed are not tested"

folder=$(mktemp -d)
child=
# The mounts were never made in this name space; --one-file-system is the second lock on that door.
trap 'rm -rf --one-file-system "$folder"' EXIT
# unshare blocks the gentler signals; its death takes everything inside along, which needs a moment.
trap '[[ -z $child ]] || { kill -KILL $child && sleep 2; }; exit 130' INT TERM
mkdir "$folder/system"
mirror=$(host_mirror)
proxy=
eval "$(apt-config shell proxy Acquire::http::Proxy)"
if [[ -n $proxy && -z ${http_proxy:-} ]]; then export http_proxy=$proxy; fi

# In the background, because bash runs traps only between foreground commands.
unshare --mount --pid --fork --kill-child "${BASH_SOURCE[0]}" --inside "$folder/system" "$suite" "$mirror" "${commands[@]}" \
    > >(without_host_names "$mirror" "${http_proxy:-}" "${https_proxy:-}") 2>&1 &
child=$!
status=0
wait $child || status=$?
child=
sleep 0.2 # the last lines are still on their way through the filter
((status == 0)) || exit $status
