#!/usr/bin/env bash
# Runs every check of this repository except the licences (scripts/licences.sh): formatting, lints,
# docs, scripts, and all tests. As root it installs missing Debian packages, and the tests create their
# namespaces with `unshare -n`; as another user they use `unshare -Urn`. It skips nothing: a check that
# cannot run fails.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$root/scripts/lib.sh"
exec </dev/null

headline "Install missing packages"
need_packages "${build_packages[@]}" "${nft_packages[@]}" ip:iproute2 unshare:util-linux \
    nginx:nginx-light dnsmasq:dnsmasq-base shellcheck:shellcheck c++:g++ capsh:libcap2-bin \
    conntrack:conntrack ipset:ipset iptables-nft:iptables python3:python3 prometheus:prometheus \
    zsh:zsh fish:fish /etc/ssl/certs/ca-certificates.crt:ca-certificates
need_cargo
"$root/scripts/tools.sh" >/dev/null
for tool in fmt clippy; do
    run_cargo "$tool" --version >/dev/null 2>&1 ||
        die "cargo $tool is missing: rustup component add rustfmt clippy"
done

headline "Scripts"
(cd "$root" && shellcheck -x scripts/*.sh scripts/*/*.sh .ci/run)

headline "Formatting"
run_cargo fmt --check

headline "Lints"
run_cargo clippy --all-targets --locked -- -D warnings

# cargo-fuzz builds them with a nightly compiler; here they only have to compile.
headline "Fuzzers"
run_cargo check --manifest-path fuzz/Cargo.toml --target-dir target --locked

headline "Docs"
RUSTDOCFLAGS='-D warnings' run_cargo doc --no-deps --locked

headline "Tests"
run_cargo test --no-run --locked
# As the current user: under sudo the tests run as root, and the user owns the build.
run_cargo_as_caller test --locked --no-fail-fast
