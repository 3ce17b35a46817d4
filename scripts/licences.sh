#!/usr/bin/env bash
# Checks the licences and sources of all crates, and for duplicate crates, against deny.toml.
# It is separate from scripts/test.sh because cargo-deny takes three minutes to build if it is missing.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$root/scripts/lib.sh"
exec </dev/null

need_packages "${build_packages[@]}"
need_cargo
run_cargo deny --version >/dev/null 2>&1 || run_cargo install --locked cargo-deny
run_cargo deny --locked check licenses bans sources
