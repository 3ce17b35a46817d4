#!/usr/bin/env bash
# Assembles the root file system of the image in DIR, which must be empty or not there: kube-dnat, the
# libraries that it needs and nothing to log in to. The Dockerfile copies the outcome as it is; a test
# runs kube-dnat from it without Docker (tests/net/packets/image.rs). On Debian and Ubuntu, as every
# file comes from an installed package, whose status and copyright go along for those who make SBOMs.
#
#   scripts/rootfs.sh DIR             the image
#   scripts/rootfs.sh DIR --debug     with nft and conntrack, to look at what kube-dnat made
#   KUBE_DNAT=/path/to/kube-dnat      take this binary, not target/release/kube-dnat
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

# For API servers whose kubeconfig names no CA.
certificates=/etc/ssl/certs/ca-certificates.crt
need_packages dpkg-query:dpkg ldd:libc-bin $certificates:ca-certificates
if [ ${#programs[@]} -gt 0 ]; then need_packages "${nft_packages[@]}" conntrack:conntrack; fi
if [ -z "${KUBE_DNAT:-}" ]; then
    need_cargo
    KUBE_DNAT=$(target_directory)/release/kube-dnat
fi
[ -x "$KUBE_DNAT" ] || die "$KUBE_DNAT is not there: cargo build --release --locked"

mkdir -p "$dir"
[ -z "$(ls -A "$dir")" ] || die "$dir is not empty"

# package_of FILE: dpkg may know a file of the merged /usr by its other name. It also tells of diversions.
package_of() {
    local name
    for name in "$1" "/usr$1" "${1#/usr}" "$(readlink -f "$1")"; do
        dpkg-query --search "$name" 2>/dev/null | sed '/^diversion /d; s/: .*//; s/, .*//; q' | grep . && return
    done
    die "$1 is of no package"
}

# add_package PACKAGE: what scanners of images read where there is no package manager, and the licence.
add_package() {
    local name=${1%%:*} sums
    mkdir -p "$dir/var/lib/dpkg/status.d" "$dir/usr/share/doc/$name"
    dpkg-query --status "$1" >"$dir/var/lib/dpkg/status.d/$name"
    sums=$(dpkg-query --control-path "$1" md5sums)
    if [ -n "$sums" ]; then cp "$sums" "$dir/var/lib/dpkg/status.d/$name.md5sums"; fi
    cp -L "/usr/share/doc/$name/copyright" "$dir/usr/share/doc/$name/copyright"
}

# add_file FILE: under its own name, even if that is a link.
add_file() {
    local package
    package=$(package_of "$1")
    install -D -m "$(stat -L -c %a "$1")" "$1" "$dir$1"
    add_package "$package"
}

# add_libraries PROGRAM: all that it needs to start, the loader too.
add_libraries() {
    local needed file
    needed=$(ldd "$1") || die "$1 is not of this machine's kind"
    case $needed in *"not found"*) die "$1 misses libraries: $needed" ;; esac
    needed=$(sed -n 's/^\t\(.* => \)\?\(\/[^ ]*\) (.*/\2/p' <<<"$needed")
    while read -r file; do
        [ -e "$dir$file" ] || add_file "$file"
    done <<<"$needed"
}

install -D -m 755 "$KUBE_DNAT" "$dir/usr/local/bin/kube-dnat"
add_libraries "$KUBE_DNAT"
# kube-proxy's DaemonSet names its program by this path: there the image is all that is to be changed.
ln -s kube-dnat "$dir/usr/local/bin/kube-proxy"
install -D -m 644 -t "$dir/usr/share/doc/kube-dnat" "$root/LICENSE" "$root/Cargo.lock"

for program in "${programs[@]}"; do
    path=$(PATH=$PATH:/usr/sbin:/sbin command -v "$program")
    add_file "$path"
    add_libraries "$path"
done
# Without it nft prints 6 for tcp, and does not read the word.
if [ ${#programs[@]} -gt 0 ]; then add_file /etc/protocols; fi

install -D -m 644 $certificates "$dir$certificates"
add_package ca-certificates
add_file /etc/os-release
printf 'root:x:0:0:root:/:/usr/sbin/nologin\n' >"$dir/etc/passwd"
printf 'root:x:0:\n' >"$dir/etc/group"
# The API server may be named, and a Pod on the node's network resolves as the node does.
printf 'hosts: files dns\n' >"$dir/etc/nsswitch.conf"
# What a container's runtime mounts over.
mkdir "$dir/dev" "$dir/proc" "$dir/sys"
