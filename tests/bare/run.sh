#!/bin/sh
# Shows that a bare Debian 12 is enough: makes a minimal root file system, copies the project in, and runs ./dev
# there by chroot. Takes minutes and the network, so no other test calls it:
#
#   tests/bare/run.sh                 # ./dev run, then ./dev test
#   tests/bare/run.sh check           # only these commands of ./dev, in this order
#   KEEP=1 tests/bare/run.sh run      # leave the root file system for a look
#
# Needs root and mmdebstrap. The host's package sources, certificates and pip settings are copied in, so that the
# inside reaches the registries as the host does. Everything is mounted in a mount namespace that ends with this.

set -eu
[ "$(id -u)" = 0 ] || { echo 'bare: needs root' >&2; exit 1; }
command -v mmdebstrap >/dev/null || { echo 'bare: needs mmdebstrap (apt-get install mmdebstrap)' >&2; exit 1; }

if [ "${BARE_INSIDE:-}" != 1 ]; then
    exec env BARE_INSIDE=1 unshare --mount --propagation private "$0" "$@"
fi

project=$(cd "$(dirname "$0")/../.." && pwd)
root=$(mktemp -d /var/tmp/swiftlet-bare.XXXXXX)
[ $# -gt 0 ] || set -- run test

clean() {
    code=$?
    trap - EXIT INT TERM
    set +e
    if [ -n "${KEEP:-}" ]; then
        echo "bare: kept $root" >&2
        exit "$code"
    fi
    cut -d' ' -f5 /proc/self/mountinfo | grep -e "^$root/" -e "^$root\$" | sort -r | while read -r point; do
        umount -l "$point"
    done
    rm -rf --one-file-system "$root"
    exit "$code"
}
trap clean EXIT INT TERM

copy_settings() {
    for path in /etc/ssl/certs /usr/local/share/ca-certificates /etc/pip.conf /etc/apt/sources.list \
        /etc/apt/sources.list.d /etc/apt/apt.conf.d /etc/resolv.conf /etc/hosts; do
        [ -e "$path" ] || continue
        mkdir -p "$root$(dirname "$path")"
        cp -aLT "$path" "$root$path" 2>/dev/null || cp -aT "$path" "$root$path"
    done
}

# Folders of packages on this host that pip's settings name by path.
mount_local_registries() {
    for path in $(sed -n -e 's#.*file://\(/[^ ]*\).*#\1#p' -e 's#^find-links *= *\(/[^ ]*\).*#\1#p' /etc/pip.conf 2>/dev/null); do
        top=/$(echo "$path" | cut -d/ -f2,3)
        [ -d "$top" ] && [ ! -d "$root$top" ] || continue
        mkdir -p "$root$top"
        mount --bind "$top" "$root$top"
    done
}

# Runs in mount and pid namespaces of its own, so that nothing survives it. A process whose root is not its namespace's
# is refused user namespaces by the kernel, therefore pivot_root before chroot. A daemon that is asked to end takes its
# bridge and its rules along.
INSIDE='
set -e
cd "$1"; shift
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
pivot_root . .
umount -l .
code=0
for command; do
    echo "bare: ./dev $command" >&2
    chroot . /usr/bin/env -i HOME=/root PATH="$PATH" LANG=C.UTF-8 ${CI:+CI="$CI"} \
        ${SSL_CERT_FILE:+SSL_CERT_FILE="$SSL_CERT_FILE"} ${PIP_CERT:+PIP_CERT="$PIP_CERT"} \
        sh -c "cd /srv/swiftlet && ./dev $command" || { code=$?; break; }
done
kill -TERM -1 || true
sleep 2
exit "$code"
'

make_root() {
    set --
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
        [ ! -s "$file" ] || set -- "$@" "$file"
    done
    mount --bind "$root" "$root"   # pivot_root and overlays inside want the root to be a mount point
    mmdebstrap --quiet --variant=minbase --include=ca-certificates bookworm "$root" "$@"
}

echo 'bare: making a minimal Debian 12' >&2
make_root
copy_settings
mount_local_registries

mkdir -p "$root/srv/swiftlet"
tar -C "$project" --exclude=./.venv --exclude=./.git --exclude='*_cache' --exclude=__pycache__ -cf - . |
    tar -C "$root/srv/swiftlet" -xf -

PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    unshare --mount --propagation private --pid --fork --kill-child sh -c "$INSIDE" bare "$root" "$@"
echo 'bare: passed' >&2
