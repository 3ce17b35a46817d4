#!/usr/bin/env bash
# Publishes a release: the image of all architectures and the chart in a registry, both signed with
# cosign, and the files of the packages as a release on GitHub. The release workflow runs this script.
#
#   scripts/publish.sh DIR TAG        DIR has one directory for each architecture, from scripts/package.sh
#   REGISTRY=HOST REPOSITORY=OWNER/NAME REGISTRY_USER=NAME REGISTRY_PASSWORD=PASSWORD
#   DRY_RUN=true                      pushes to the registry, but neither signs nor creates the release
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$root/scripts/lib.sh"
exec </dev/null

[ $# -eq 2 ] || die "usage: $0 DIR TAG"
dir=$1 tag=$2
for name in REGISTRY REPOSITORY REGISTRY_USER REGISTRY_PASSWORD; do
    [ -n "${!name:-}" ] || die "$name is not set"
done
version=$(sed -n 's/^version = "\(.*\)"/\1/p;T;q' "$root/Cargo.toml")
[ "$tag" = "v$version" ] || die "the tag is $tag, and Cargo.toml has version $version"
tools=(podman helm jq sha256sum)
[ "${DRY_RUN:-}" = true ] || tools+=(cosign gh)
for tool in "${tools[@]}"; do
    command -v "$tool" >/dev/null || die "$tool is missing"
done
# Names in a registry are in lower case.
image=$REGISTRY/${REPOSITORY,,}
files=()
for directory in "$dir"/*/; do
    (cd "$directory" && sha256sum --check --strict SHA256SUMS)
    files+=("$directory"kube-dnat*)
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat "$dir"/*/SHA256SUMS >"$work/SHA256SUMS"

headline "Image"
export REGISTRY_AUTH_FILE=$work/auth.json
podman login --username "$REGISTRY_USER" --password-stdin "$REGISTRY" <<<"$REGISTRY_PASSWORD"
podman manifest create "$image:$version"
for archive in "$dir"/*/*.oci.tar; do
    podman manifest add "$image:$version" "oci-archive:$archive"
done
podman manifest push --all --format oci --digestfile "$work/digest" "$image:$version" "docker://$image:$version"
podman manifest rm "$image:$version" >/dev/null

headline "Chart"
helm package --destination "$work" --version "$version" --app-version "$version" "$root/manifests/chart"
helm push --registry-config "$REGISTRY_AUTH_FILE" "$work"/*.tgz "oci://$REGISTRY/${REPOSITORY,,}/charts" 2>&1 |
    tee "$work/pushed"
chart=$REGISTRY/${REPOSITORY,,}/charts/kube-dnat@$(sed -n 's/^Digest: //p' "$work/pushed")

if [ "${DRY_RUN:-}" != true ]; then
    headline "Signatures"
    cosign login --username "$REGISTRY_USER" --password-stdin "$REGISTRY" <<<"$REGISTRY_PASSWORD"
    cosign sign --yes --recursive "$image@$(cat "$work/digest")"
    cosign sign --yes "$chart"
    cosign sign-blob --yes --bundle "$work/SHA256SUMS.bundle" "$work/SHA256SUMS"

    headline "Release"
    gh release create "$tag" --repo "$REPOSITORY" --verify-tag --title "kube-dnat $version" \
        --notes "CHANGELOG.md lists the changes. Image: $image:$version" \
        "${files[@]}" "$work"/SHA256SUMS "$work"/SHA256SUMS.bundle
fi
