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

# Processes that were started in the chroot and are still there: a daemon of ours would keep the folder busy.
inside() {
    for link in /proc/[0-9]*/root; do
        [ "$(readlink "$link" 2>/dev/null)" != "$root" ] || { link=${link#/proc/}; echo "${link%/root}"; }
    done
}

clean() {
    code=$?
    trap - EXIT INT TERM
    set +e
    for process in $(inside); do kill "$process"; done   # a daemon takes its bridge and its rules along
    sleep 1
    for process in $(inside); do kill -9 "$process"; done
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

mount_kernel() {
    mount -t proc proc "$root/proc"
    mount --rbind /sys "$root/sys"
    mount --rbind /dev "$root/dev"
    mount -t tmpfs tmpfs "$root/run"
    mount -t tmpfs tmpfs "$root/tmp"
}

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
mount_kernel

mkdir -p "$root/srv/swiftlet"
tar -C "$project" --exclude=./.venv --exclude=./.git --exclude='*_cache' --exclude=__pycache__ -cf - . |
    tar -C "$root/srv/swiftlet" -xf -

for command; do
    echo "bare: ./dev $command" >&2
    # shellcheck disable=SC2086  # a command of ./dev with its arguments
    chroot "$root" /usr/bin/env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        LANG=C.UTF-8 ${CI:+CI=$CI} ${SSL_CERT_FILE:+SSL_CERT_FILE=$SSL_CERT_FILE} ${PIP_CERT:+PIP_CERT=$PIP_CERT} \
        sh -c "cd /srv/swiftlet && ./dev $command"
done
echo 'bare: passed' >&2
