#!/usr/bin/env bash
# Every check of this repository but the licences (scripts/licences.sh): formatting, lints, docs,
# scripts, and all tests. As root it installs the Debian packages that are missing and the tests make
# their namespaces with `unshare -n`; as another user with `unshare -Urn`. Nothing is skipped: what
# cannot run fails.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$root/scripts/lib.sh"
exec </dev/null

headline "Install what is missing"
need_packages "${build_packages[@]}" "${nft_packages[@]}" ip:iproute2 unshare:util-linux \
    nginx:nginx-light dnsmasq:dnsmasq-base shellcheck:shellcheck capsh:libcap2-bin \
    conntrack:conntrack ipset:ipset iptables-nft:iptables /etc/ssl/certs/ca-certificates.crt:ca-certificates
need_cargo
for tool in fmt clippy; do
    run_cargo "$tool" --version >/dev/null 2>&1 ||
        die "cargo $tool is missing: rustup component add rustfmt clippy"
done

headline "Scripts"
(cd "$root" && shellcheck -x scripts/*.sh .ci/run)

headline "Formatting"
run_cargo fmt --check

headline "Lints"
run_cargo clippy --all-targets --locked -- -D warnings

headline "Docs"
RUSTDOCFLAGS='-D warnings' run_cargo doc --no-deps --locked

headline "Tests"
run_cargo test --no-run --locked
# As the caller: under sudo the tests are root's, what is built before is the user's.
run_cargo_as_caller test --locked --no-fail-fast
