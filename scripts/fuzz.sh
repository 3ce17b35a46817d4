#!/usr/bin/env bash
# Fuzzes every reader of input with random data for MINUTES in all, each target for an equal part, and
# prints a table. It ends non-zero if a target crashed. docs/fuzzing.md describes the targets.
#
# A target begins with its kept corpus, fuzz/corpus/TARGET, and with the inputs that earlier runs on
# this machine found, fuzz/target/corpus/TARGET. The kept corpus does not change.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$root/scripts/lib.sh"

minutes=${1:-}
case $minutes in
    '' | *[!0-9]*) die "usage: $0 MINUTES" ;;
esac

headline "Install missing packages and build"
need_packages "${build_packages[@]}" c++:g++
need_cargo
run_cargo_as_caller fuzz --version >/dev/null 2>&1 ||
    die "cargo-fuzz is missing: cargo install --locked cargo-fuzz"

# The instrumentation is not stable yet, and rustc accepts it like this. All code but netlink/ffi.rs is
# safe, so that the address sanitizer would only halve the speed.
export RUSTC_BOOTSTRAP=1
options=(--sanitizer none --codegen-units 16)
run_cargo_as_caller fuzz build "${options[@]}"
mapfile -t targets < <(run_cargo_as_caller fuzz list)
seconds=$((10#$minutes * 60 / ${#targets[@]}))
[ "$seconds" -gt 0 ] || die "$minutes minutes are too short for ${#targets[@]} targets"

# statistic FILE NAME: prints a number of libFuzzer's final statistics; 0 after a crash at once.
statistic() { sed -n "s/^stat::$2: *//p" "$1" | tail -1 | grep . || echo 0; }

# progress FILE NAME: prints a number of libFuzzer's last line of progress, like `cov: 123`.
progress() { sed -n "s/^#[0-9].* $2: \([0-9]*\).*/\1/p" "$1" | tail -1 | grep . || echo 0; }

# Inputs cover so many features that libFuzzer's default, to prefer rare ones, takes half of the time.
libfuzzer=(-entropic=0 -max_total_time="$seconds" -print_final_stats=1 -timeout=10)

logs=$root/fuzz/target/logs
mkdir -p "$logs"
crashed=()
rows=()
for target in "${targets[@]}"; do
    headline "$target for $seconds s"
    log=$logs/$target
    found=fuzz/target/corpus/$target
    mkdir -p "$root/$found" "$root/fuzz/corpus/$target"
    crashes=0
    run_cargo_as_caller fuzz run "${options[@]}" "$target" "$found" "fuzz/corpus/$target" -- \
        "${libfuzzer[@]}" >"$log" 2>&1 || crashes=1
    if [ "$crashes" -gt 0 ]; then
        crashed+=("$target")
        grep -v '^#[0-9]' "$log" | tail -40
    fi
    rows+=("$(printf '%-10s %11s %7s %9s %9s %7s %8s' "$target" \
        "$(statistic "$log" number_of_executed_units)" "$(statistic "$log" average_exec_per_sec)" \
        "$(progress "$log" cov)" "$(progress "$log" ft)" "$(progress "$log" corp)" "$crashes")")
done

headline "Fuzzed for $minutes minutes"
printf '%-10s %11s %7s %9s %9s %7s %8s\n' target executions per-s edges features corpus crashes
printf '%s\n' "${rows[@]}"
[ ${#crashed[@]} -eq 0 ] || die "crashed: ${crashed[*]}. The inputs are in fuzz/artifacts/."
