#!/bin/bash
# The nft of each release, on the tables of a running kube-dnat with the examples and session affinity in
# use: whether it lists them, and whether it loads what it has listed, and what `kube-dnat render` prints,
# into an empty namespace. nft 1.0.6 and newer must list them, and the distribution's own nft must load
# what `render` prints.
# shellcheck source-path=SCRIPTDIR source=lab.sh
. "$(dirname "$0")/lab.sh"

add_node
for pod in pod-1:11 client:99; do add_pod "${pod%:*}" "${pod#*:}"; done
serve pod-1 TCP 8080
service affinity 10.96.0.1 TCP 80 8080 10.244.1.11
sed -i 's/  clusterIP:/  sessionAffinity: ClientIP\n  clusterIP:/' "$dir/manifests/affinity.yaml"
cp manifests/examples/*.yaml "$dir/manifests/"
start_kube_dnat
expect "pod-1 saw 10.244.1.99" ask client TCP 10.96.0.1 80
"$program" render --manifests "$dir/manifests" --hostname-override node-1 >"$dir/rendered"

failures=0
# answer NAME COMMAND...: runs it, and prints yes, or no and the first error.
answer() {
    if "${@:2}" 2>"$dir/error"; then
        printf '%s: yes' "$1"
    else
        printf '%s: no (%s)' "$1" "$(head -n 1 "$dir/error")"
    fi
}
for release in ${releases:?}; do
    nft=(chroot "/releases/$release" nft)
    list() { on node "${nft[@]}" list ruleset >"$dir/listed"; }
    load() { unshare --net "${nft[@]}" -f - <"$1"; }
    check_beside() { on node "${nft[@]}" --check -f - <"$dir/rendered"; }
    lists=$(answer "lists" list)
    loads=$(answer "loads the rendered text" load "$dir/rendered")
    reloads="loads its listing: no"
    case $lists in *yes) reloads=$(answer "loads its listing" load "$dir/listed") ;; esac
    version=$("${nft[@]}" --version)
    printf 'FACT nft %s %s; %s; %s; %s\n' \
        "$(awk '{ print substr($2, 2) }' <<<"$version")" "$lists" "$loads" "$reloads" \
        "$(answer "checks the rendered text where the tables exist" check_beside)"
    if [ "$version" = "$(nft --version)" ]; then
        case $loads in *yes) ;; *) failures=$((failures + 1)) ;; esac
    fi
    case "$release $lists" in
        bullseye\ * | *yes) ;;
        *) failures=$((failures + 1)) ;;
    esac
done
[ "$failures" -eq 0 ] || fail "nft does not list or load the tables"
