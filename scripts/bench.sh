#!/usr/bin/env bash
# Measures the performance of kube-dnat in its own network namespaces, and prints tables with the
# targets. It takes about six minutes after the build; with --quick about two minutes, with fewer sizes.
#
# With --fleet [N] it measures instead what N nodes (200) cost the API server, in about five minutes:
# the tests' own API server, and beside it the real one, with half of the nodes, and kube-proxy.
#
# The figures go to target/bench.jsonl. Without --quick they also go to docs/performance.jsonl, and the
# script draws the plots of docs/ from them.
#
#   KUBE_PROXY_BIN=/path/to/kube-proxy     also measure that kube-proxy, with its packets
#   KUBE_DNAT_BIN=/path/to/kube-dnat       also measure that other build, from the API server
#   FLEET_BARE=1         with --fleet: endpoints without a targetRef, whose texts are half of their bytes
#   KUBEBUILDER_ASSETS=/folder/with/etcd/and/kube-apiserver     use a real API server
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$root/scripts/lib.sh"

quick=false fleet=''
case ${1:-} in
    '') ;;
    --quick) quick=true ;;
    --fleet) fleet=${2:-200} ;;
    *) die "usage: $0 [--quick | --fleet [N]]" ;;
esac
[ "$(id -u)" -eq 0 ] || exec unshare -Ur -- "$0" "$@"

headline "Install missing packages and build"
need_packages "${build_packages[@]}" "${nft_packages[@]}" ip:iproute2
need_cargo
run_cargo bench --bench scale --no-run --locked

figures=$(target_directory)/bench.jsonl
: >"$figures"

# measure WHAT CLUSTER...: appends the figures to the file.
measure() {
    headline "Measure $*"
    run_cargo bench --quiet --locked --bench scale -- "$@" | tee -a "$figures" | sed 's/"subject"/\n&/g' |
        sed -n 's/.*"cluster":"\([^"]*\)","what":"\([^"]*\)".*/   \1 \2/p'
}

if [ -n "$fleet" ]; then
    measure fleet "$fleet" 10000
elif $quick; then
    measure changes 1000 10000 1x10000
    measure api 10000
    measure packets 10000
else
    measure changes 1000 2000 5000 10000 20000 50000 1x10000
    measure api 1000 10000
    # kube-proxy needs a quarter of an hour for each of these.
    (unset KUBE_PROXY_BIN && measure api 50000 44125x1 5006x50)
    measure packets 1000 10000
fi

headline "On $(nproc) processors, Linux $(uname -r), $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)"
plots=$(target_directory)
if [ -n "$fleet" ]; then
    cp "$figures" "$root/docs/scale.jsonl"
elif ! $quick; then
    plots=$root/docs
    cp "$figures" "$root/docs/performance.jsonl"
fi
run_cargo bench --quiet --locked --bench scale -- tables "$figures" "$plots"
