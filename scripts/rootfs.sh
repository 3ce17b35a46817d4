#!/usr/bin/env bash
# Assembles the root file system of the image in DIR, which must be empty or must not exist: kube-dnat
# and the libraries that it needs, without a shell. The Dockerfile copies the result unchanged, and a
# test runs kube-dnat from it without Docker (tests/net/packets/image.rs). The script needs Debian or
# Ubuntu: every file comes from an installed package. It includes the status and copyright of each
# package, for SBOMs.
#
#   scripts/rootfs.sh DIR             the image
#   scripts/rootfs.sh DIR --debug     with nft and conntrack, to inspect the tables
#   KUBE_DNAT=/path/to/kube-dnat      use this binary instead of target/release/kube-dnat
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$root/scripts/lib.sh"
exec </dev/null

dir=${1:-}
case "$dir ${*:2}" in
    ' '* | -*) die "usage: $0 DIR [--debug]" ;;
    *' ') programs=() ;;
    *' --debug') programs=(nft conntrack) ;;
    *) die "usage: $0 DIR [--debug]" ;;
esac

# For API servers whose kubeconfig has no CA.
certificates=/etc/ssl/certs/ca-certificates.crt
need_packages dpkg-query:dpkg strip:binutils ldd:libc-bin $certificates:ca-certificates
if [ ${#programs[@]} -gt 0 ]; then need_packages "${nft_packages[@]}" conntrack:conntrack; fi
if [ -z "${KUBE_DNAT:-}" ]; then
    need_cargo
    KUBE_DNAT=$(target_directory)/release/kube-dnat
fi
[ -x "$KUBE_DNAT" ] || die "$KUBE_DNAT does not exist. Run cargo build --release --locked"

mkdir -p "$dir"
[ -z "$(ls -A "$dir")" ] || die "$dir is not empty"

# package_of FILE: dpkg may list a file of the merged /usr under its other name. It also prints
# diversions, which are removed here.
package_of() {
    local name
    for name in "$1" "/usr$1" "${1#/usr}" "$(readlink -f "$1")"; do
        dpkg-query --search "$name" 2>/dev/null | sed '/^diversion /d; s/: .*//; s/, .*//; q' | grep . && return
    done
    die "$1 belongs to no package"
}

# add_package PACKAGE: adds the licence, and the files that image scanners read if there is no package
# manager.
add_package() {
    local name=${1%%:*} sums
    mkdir -p "$dir/var/lib/dpkg/status.d" "$dir/usr/share/doc/$name"
    dpkg-query --status "$1" >"$dir/var/lib/dpkg/status.d/$name"
    sums=$(dpkg-query --control-path "$1" md5sums)
    if [ -n "$sums" ]; then cp "$sums" "$dir/var/lib/dpkg/status.d/$name.md5sums"; fi
    cp -L "/usr/share/doc/$name/copyright" "$dir/usr/share/doc/$name/copyright"
}

# add_file FILE: adds the file under its own name, even if that is a link.
add_file() {
    local package
    package=$(package_of "$1")
    install -D -m "$(stat -L -c %a "$1")" "$1" "$dir$1"
    add_package "$package"
}

# add_libraries PROGRAM: adds all libraries that it needs to start, and the loader.
add_libraries() {
    local needed file
    needed=$(ldd "$1") || die "$1 is not a binary for this machine"
    case $needed in *"not found"*) die "libraries of $1 are missing: $needed" ;; esac
    needed=$(sed -n 's/^\t\(.* => \)\?\(\/[^ ]*\) (.*/\2/p' <<<"$needed")
    while read -r file; do
        [ -e "$dir$file" ] || add_file "$file"
    done <<<"$needed"
}

# Without debug information, which is four fifths of the file.
mkdir -p "$dir/usr/local/bin"
strip -o "$dir/usr/local/bin/kube-dnat" "$KUBE_DNAT"
chmod 755 "$dir/usr/local/bin/kube-dnat"
add_libraries "$KUBE_DNAT"
# kube-proxy's DaemonSet runs this path, so it only needs another image.
ln -s kube-dnat "$dir/usr/local/bin/kube-proxy"
install -D -m 644 -t "$dir/usr/share/doc/kube-dnat" "$root/LICENSE" "$root/Cargo.lock"

for program in "${programs[@]}"; do
    path=$(PATH=$PATH:/usr/sbin:/sbin command -v "$program")
    add_file "$path"
    add_libraries "$path"
done
# Without this file nft prints 6 for tcp, and cannot read tcp.
if [ ${#programs[@]} -gt 0 ]; then add_file /etc/protocols; fi

install -D -m 644 $certificates "$dir$certificates"
add_package ca-certificates
add_file /etc/os-release
printf 'root:x:0:0:root:/:/usr/sbin/nologin\n' >"$dir/etc/passwd"
printf 'root:x:0:\n' >"$dir/etc/group"
# The API server may have a host name. A Pod on the host network resolves names like the node.
printf 'hosts: files dns\n' >"$dir/etc/nsswitch.conf"
# Mount points for the container runtime.
mkdir "$dir/dev" "$dir/proc" "$dir/sys"
