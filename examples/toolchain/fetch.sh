#!/bin/sh
# Fetches the sources of Debian packages, as their authors released them, and unpacks them: fetch.sh FOLDER PACKAGE...
#
# Uses the host's own apt sources and keys with `deb-src`, which most hosts leave out, in a state of its own: neither
# the host's package lists nor its configuration change. apt checks what it fetches. Prints what it unpacked.

set -eu
[ $# -ge 2 ] || { echo "usage: $0 FOLDER PACKAGE..." >&2; exit 2; }
folder=$1
shift
state=$(mktemp -d)
trap 'rm -rf "$state"' EXIT
mkdir -p "$folder" "$state/lists/partial" "$state/cache/archives/partial" "$state/parts" "$state/fetched"

for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
    grep -qs '/debian' "$file" || continue   # other archives seldom have sources
    sed -e 's/^Types:.*/Types: deb-src/' -e 's/^deb /deb-src /' "$file" >"$state/parts/${file##*/}"
done
cat >"$state/apt.conf" <<END
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "$state/parts";
Dir::State::lists "$state/lists";
Dir::Cache "$state/cache";
APT::Sandbox::User "root";
END
export APT_CONFIG="$state/apt.conf"
apt-get -qq update
cd "$state/fetched"
apt-get -qq source --download-only "$@"
cd "$OLDPWD"
for description in "$state"/fetched/*.dsc; do
    grep -q '\.orig\.tar\.' "$description" || {
        echo "$0: ${description##*/} is of a native package: Debian is its author, and there is no other release" >&2
        exit 1
    }
done
for archive in "$state"/fetched/*.orig.tar.*; do
    case $archive in *.asc) continue ;; esac   # its author's signature, which Debian keeps beside it
    tar -xf "$archive" -C "$folder" --no-same-owner
    tar -tf "$archive" | sed -n '1s,/.*,,p'
done
