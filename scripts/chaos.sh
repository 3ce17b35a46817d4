#!/usr/bin/env bash
# Breaks everything on a node at random while clients connect, and counts connections that fail. The
# same SEED gives the same faults in the same order.
#
#   scripts/chaos.sh [SECONDS [SEED]]     300 seconds, seed 1
#
#   CHAOS_RATE=500           new connections a second
#   CHAOS_HELD=200           connections that stay open
#   CHAOS_CONNECTIONS=N      go on until there are so many new connections
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$root/scripts/lib.sh"

[ $# -le 2 ] || die "usage: $0 [SECONDS [SEED]]"
export CHAOS_SECONDS=${1:-300} CHAOS_SEED=${2:-1}
export CHAOS_RATE=${CHAOS_RATE:-500} CHAOS_HELD=${CHAOS_HELD:-200}
need_packages "${build_packages[@]}" "${nft_packages[@]}" ip:iproute2 unshare:util-linux nginx:nginx-light
need_cargo
run_cargo_as_caller test --quiet --locked --test net -- --exact chaos::no_connection_fails_whatever_breaks
