#!/usr/bin/env bash
# Tests the page of the admin port (docs/operations.md#the-page) in a real Chromium: rendered, searched,
# refreshed, with 10,000 Services, with hostile names, while the daemon is stopped, on a phone, in the
# dark. As root it installs missing Debian packages. All runs in a network namespace of its own.
# `scripts/test-page.sh --screenshots` renews the pictures in docs/ instead.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$root/scripts/lib.sh"
exec </dev/null

case ${1:-} in
    "") program=test.py profile=dev folder=debug ;;
    # The figures in the pictures are those of the program that users run.
    --screenshots) program=screenshots.py profile=release folder=release ;;
    *) die "usage: scripts/test-page.sh [--screenshots]" ;;
esac

headline "Install missing packages and build kube-dnat"
need_packages "${build_packages[@]}" ip:iproute2 unshare:util-linux python3:python3 \
    chromium:chromium chromedriver:chromium-driver
need_cargo
run_cargo build --locked --profile "$profile"
kube_dnat=$(target_directory)/$folder/kube-dnat

headline "The page in Chromium"
user=()
[ "$(id -u)" -eq 0 ] || user=(-Ur)
# Connections to ClusterIPs need a route, and their endpoints must not be answered.
# shellcheck disable=SC2016
timeout 600 unshare "${user[@]}" -n sh -euc '
    ip link set lo up
    ip link add outside type veth peer name other
    ip link set other up
    ip addr add 192.0.2.1/24 dev outside
    ip link set outside up
    ip route add default dev outside
    exec env -u PYTHONHOME PYTHONDONTWRITEBYTECODE=1 python3 "$1" "$2" "$3"
' sh "$root/scripts/page/$program" "$kube_dnat" "$root/docs"
