#!/usr/bin/env bash
# Runs scripts/chaos.sh at a low rate for HOURS, and samples memory, file descriptors, threads, elements
# and conntrack entries every minute into FILE.csv, drawn as FILE.svg.
#
#   scripts/soak.sh HOURS [FILE]     FILE: soak in the build directory, without the suffix
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$root/scripts/lib.sh"

case $# in 1 | 2) ;; *) die "usage: $0 HOURS [FILE]" ;; esac
file=${2:-$(target_directory)/soak}
export CHAOS_RATE=${CHAOS_RATE:-50} CHAOS_HELD=${CHAOS_HELD:-60} CHAOS_PAUSE_MS=${CHAOS_PAUSE_MS:-10000}
export CHAOS_SAMPLES=$file.csv
"$root/scripts/chaos.sh" "$(($1 * 3600))" "${CHAOS_SEED:-1}"
echo "$file.csv $file.svg"
