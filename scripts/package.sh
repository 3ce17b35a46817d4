#!/usr/bin/env bash
# Builds the packages of kube-dnat into DIR (target/dist): a Debian package and its debug symbols, an OCI
# image archive, a tarball, an SBOM and the checksums. It needs Debian or Ubuntu, and neither Docker nor
# root. The same source gives the same bytes on the same distribution.
#
#   scripts/package.sh [DIR]
#   SOURCE_DATE_EPOCH=SECONDS   the time of all files; without it, that of the commit
#   REVISION=HASH               the revision; without it, that of the commit
#   IMAGE=NAME:TAG              the name in the image archive; without it, localhost/kube-dnat:VERSION
#   PROFILE=dev                 a quick build for tests of the packages, from the build of the other tests
#   MAINTAINER='NAME <ADDRESS>' the maintainer of the Debian packages
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$root/scripts/lib.sh"
# shellcheck source-path=SCRIPTDIR source=package/build.sh
. "$root/scripts/package/build.sh"
# shellcheck source-path=SCRIPTDIR source=package/sbom.sh
. "$root/scripts/package/sbom.sh"
# shellcheck source-path=SCRIPTDIR source=package/image.sh
. "$root/scripts/package/image.sh"
# shellcheck source-path=SCRIPTDIR source=package/deb.sh
. "$root/scripts/package/deb.sh"
exec </dev/null
umask 022

[ $# -le 1 ] || die "usage: $0 [DIR]"
need_packages "${build_packages[@]}" jq:jq dpkg-shlibdeps:dpkg-dev objcopy:binutils xz:xz-utils \
    /etc/ssl/certs/ca-certificates.crt:ca-certificates
need_cargo

git_show() { git -C "$root" log -1 --format="$1" 2>/dev/null; }
revision=${REVISION:-$(git_show %H || echo unknown)}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git_show %ct)} ||
    die "this is no git repository. Set SOURCE_DATE_EPOCH to the time of the source, in seconds"
export SOURCE_DATE_EPOCH
version=$(sed -n 's/^version = "\(.*\)"/\1/p;T;q' "$root/Cargo.toml")
deb_version=$version-1
level=9
[ "${PROFILE:-release}" = release ] || level=1
architecture=$(dpkg --print-architecture)
case $architecture in
    amd64) target_triple=x86_64-unknown-linux-gnu ;;
    arm64) target_triple=aarch64-unknown-linux-gnu ;;
    *) die "$architecture is not supported" ;;
esac
maintainer=${MAINTAINER:-kube-dnat maintainers <maintainers@kube-dnat.example>}
created=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)
dir=${1:-$(target_directory)/dist}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
[ -z "$(ls -A "$dir")" ] || die "$dir is not empty"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# pack DIR: prints a tar archive whose bytes depend only on the names, modes and contents of the files.
pack() {
    tar --create --sort=name --format=gnu --owner=0 --group=0 --numeric-owner \
        --mtime="@$SOURCE_DATE_EPOCH" --directory "$1" .
}

headline "Build kube-dnat $version, revision $revision"
build_binaries "$work/bin"
objcopy --only-keep-debug --compress-debug-sections "$work/bin/kube-dnat" "$work/bin/kube-dnat.debug"
strip "$work/bin/kube-dnat" "$work/bin/kube-dnat-static"

headline "Package"
mkdir "$work/man" "$work/completions"
"$work/bin/kube-dnat" man --date "${created%T*}" "$work/man"
for shell in bash zsh fish; do
    "$work/bin/kube-dnat" completions "$shell" >"$work/completions/$shell"
done
KUBE_DNAT=$work/bin/kube-dnat "$root/scripts/rootfs.sh" "$work/rootfs"
write_sbom "$work/rootfs" "$work/kube-dnat.spdx.json"
install -m 644 "$work/kube-dnat.spdx.json" "$dir/kube-dnat-$version-linux-$architecture.spdx.json"
write_image "$work/rootfs" "$dir/kube-dnat-$version-linux-$architecture.oci.tar"
write_tarball "$dir/kube-dnat-$version-linux-$architecture.tar.gz"
write_deb "$dir"
write_debug_deb "$dir"
(cd "$dir" && LC_ALL=C sha256sum -- * >"$work/SHA256SUMS" && install -m 644 "$work/SHA256SUMS" .)
ls -l "$dir"
