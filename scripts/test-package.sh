#!/usr/bin/env bash
# Tests the packages that scripts/package.sh has built, with real tools: the Debian package in a clean
# Debian root that boots systemd in a container, the image with skopeo and podman, the SBOM, the man
# pages. It needs root on Debian or Ubuntu. A check that cannot run fails.
#
#   scripts/test-package.sh DIR           tests the packages in DIR
#   scripts/test-package.sh DIR --again   also builds them from a copy of the source in another directory,
#                                         and compares the bytes
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$root/scripts/lib.sh"
exec </dev/null

case ${1:-}:${*:2} in
    :* | -*) die "usage: $0 DIR [--again]" ;;
    *: | *:--again) dir=$(cd "$1" && pwd) ;;
    *) die "usage: $0 DIR [--again]" ;;
esac
[ "$(id -u)" -eq 0 ] || die "root is needed, for a container with systemd"
need_packages jq:jq lintian:lintian mandoc:mandoc man:man-db skopeo:skopeo podman:podman \
    mmdebstrap:mmdebstrap systemd-nspawn:systemd-container systemd-analyze:systemd \
    /usr/share/doc/python3-venv:python3-venv
work=$(mktemp -d)
container=
finish() {
    if [ -n "$container" ]; then
        kill "$container" 2>/dev/null || true
        wait "$container" || true
    fi
    rm -rf "$work"
}
trap finish EXIT

only() {
    local files
    files=$(find "$dir" -maxdepth 1 -name "$1")
    [ "$(grep -c . <<<"$files")" -eq 1 ] || die "$dir does not have exactly one $1"
    printf '%s' "$files"
}
deb=$(only 'kube-dnat_*.deb')
debug=$(only 'kube-dnat-dbgsym_*.deb')
image=$(only '*.oci.tar')
tarball=$(only '*.tar.gz')
sbom=$(only '*.spdx.json')

headline "Checksums"
(cd "$dir" && sha256sum --check --strict SHA256SUMS)
[ "$(wc -l <"$dir/SHA256SUMS")" -eq 5 ] || die "SHA256SUMS does not list five files"

headline "Debian package: dpkg, lintian"
dpkg --info "$deb"
lintian --fail-on error,warning --tag-display-limit 0 "$deb" "$debug"
dpkg --extract "$deb" "$work/deb"
dpkg --extract "$debug" "$work/debug"
id=$(readelf --notes "$work/deb/usr/bin/kube-dnat" | sed -n 's/^ *Build ID: //p')
symbols=$work/debug/usr/lib/debug/.build-id/${id:0:2}/${id:2}.debug
[ -e "$symbols" ] || die "there are no debug symbols of build ID $id"
readelf --sections "$symbols" | grep debug_line >/dev/null || die "$symbols has no line numbers"
if readelf --sections "$work/deb/usr/bin/kube-dnat" | grep 'debug_line\|symtab'; then
    die "the binary is not stripped"
fi
"$work/deb/usr/bin/kubectl-dnat" --help >"$work/help"
grep 'kubectl dnat' "$work/help" >/dev/null || die "kubectl-dnat is not the plugin of kubectl"

headline "Tarball"
tar -C "$work" -xzf "$tarball"
static=$(echo "$work"/kube-dnat-*-linux-*/kube-dnat)
"$static" --version
if ldd "$static" | grep libnftnl; then die "the binary of the tarball needs libnftnl"; fi

headline "Man pages"
for page in "$work"/kube-dnat-*-linux-*/man/*; do
    mandoc -T lint -W error "$page"
    said=$(LC_ALL=C.UTF-8 MANWIDTH=80 man --warnings --local-file --encoding=UTF-8 "$page" 2>&1 >"$work/page")
    [ -z "$said" ] || die "$page: $said"
    grep -q SYNOPSIS "$work/page" || die "$page has no synopsis"
done
[ -e "$work/deb/usr/share/man/man8/kube-dnat-explain.8.gz" ] || die "a man page is missing"

headline "SBOM: spdx-tools"
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet spdx-tools
"$work/venv/bin/pyspdxtools" --infile "$sbom"
for name in tokio kube libc6 libnftnl11; do
    jq -e --arg name "$name" 'any(.packages[]; .name == $name)' "$sbom" >/dev/null || die "$name is not in the SBOM"
done

headline "Image: skopeo, podman"
skopeo inspect "oci-archive:$image"
skopeo inspect --config "docker-archive:$image" |
    jq -e '.config.Entrypoint == ["/usr/local/bin/kube-dnat"]' >/dev/null || die "docker load would not find the image"
podman=(podman --storage-driver vfs --root "$work/podman" --runroot "$work/podman-run")
name=$("${podman[@]}" load --quiet --input "$image" | sed 's/^Loaded image: //')
mount=$("${podman[@]}" image mount "$name")
cmp "$mount/usr/local/bin/kube-dnat" "$work/deb/usr/bin/kube-dnat"
chroot "$mount" /usr/local/bin/kube-proxy --version
"${podman[@]}" image unmount "$name" >/dev/null

headline "Debian package: installation in a clean root"
# The machine's own mirror.
sources=()
for file in /etc/apt/sources.list.d/{debian,ubuntu}.sources /etc/apt/sources.list; do
    if [ -s "$file" ]; then sources+=("$file") && break; fi
done
[ ${#sources[@]} -eq 1 ] || die "/etc/apt has no sources"
# shellcheck source=/dev/null
suite=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME}")
# shellcheck disable=SC2016
mmdebstrap --quiet --variant=minbase --include=systemd,systemd-sysv,nftables,man-db \
    --customize-hook="copy-in $deb /root" \
    --customize-hook='chroot "$1" sh -c "DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends /root/*.deb"' \
    "$suite" "$work/host" "${sources[@]}"

headline "Debian package: the service, in a container with systemd"
cp "$root/scripts/package/test-service.sh" "$work/host/root"
systemd-nspawn --quiet --register=no --keep-unit --private-network --console=pipe \
    --machine=kube-dnat-package --directory="$work/host" --boot >"$work/console" 2>&1 &
container=$!
for _ in $(seq 300); do
    leader=$(pgrep -P "$container" || true)
    if [ -n "$leader" ] && nsenter --target "$leader" --all systemctl is-system-running --wait 2>/dev/null |
        grep 'running\|degraded' >/dev/null; then break; fi
    kill -0 "$container" 2>/dev/null || die "the container does not boot: $(cat "$work/console")"
    sleep 0.2
done
nsenter --target "$leader" --all bash /root/test-service.sh

if [ "${2:-}" = --again ]; then
    headline "The same bytes from another directory"
    git -C "$root" rev-parse --verify --quiet HEAD >/dev/null || die "--again needs a git repository"
    [ -z "$(git -C "$root" status --porcelain)" ] || die "--again needs a clean work tree"
    git clone --quiet "$root" "$work/elsewhere/source"
    "$work/elsewhere/source/scripts/package.sh" "$work/again"
    diff "$dir/SHA256SUMS" "$work/again/SHA256SUMS" || die "the two builds differ"
fi
printf '\n%sall checks of the packages passed%s\n' "$green" "$plain"
