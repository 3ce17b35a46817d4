# Shared by the scripts beside it: colours, missing packages, cargo. Sourced, not run; $root is the
# repository.
# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154

bold='' green='' red='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
    bold=$'\e[1m' green=$'\e[32m' red=$'\e[31m' plain=$'\e[0m'
fi

headline() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }

die() {
    printf '%s: %s\n' "$0" "$*" >&2
    exit 1
}

# need_packages WHAT:PACKAGE...: installs the Debian packages whose WHAT is missing: a program, a
# pkg-config module (NAME.pc) or a file (/PATH). As another user than root: says what to install.
need_packages() {
    local pair what missing=()
    for pair in "$@"; do
        what=${pair%%:*}
        case $what in
            *.pc) pkg-config --exists "${what%.pc}" 2>/dev/null && continue ;;
            /*) [ -e "$what" ] && continue ;;
            *) PATH=$PATH:/usr/sbin:/sbin command -v "$what" >/dev/null && continue ;;
        esac
        missing+=("${pair#*:}")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || die "missing: ${missing[*]} (Debian's names); install them and try again"
    [ "$(id -u)" -eq 0 ] || die "missing: run 'apt-get install ${missing[*]}' as root and try again"
    printf 'Installing %s\n' "${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # A package's service (nginx) must not start: the scripts run programs by hand. policy-rc.d is
    # Debian's way to say so; one that is there already is left as it is.
    local policy=/usr/sbin/policy-rc.d made=false status=0 output
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        made=true
    fi
    output=$(apt-get install -y -qq --no-install-recommends "${missing[@]}" 2>&1) || status=$?
    if $made; then rm -f "$policy"; fi
    [ "$status" -eq 0 ] || die "apt-get could not install ${missing[*]}:
$output"
    # Nor at the next boot.
    case " ${missing[*]} " in
        *" nginx-light "*) update-rc.d nginx disable >/dev/null 2>&1 || true ;;
    esac
}

# What cargo needs to build kube-dnat, for need_packages. gcc alone cannot link: the C library's own
# files are another package.
build_packages=(pkg-config:pkg-config cc:gcc /usr/include/stdio.h:libc6-dev
    libnftnl.pc:libnftnl-dev libmnl.pc:libmnl-dev)
# nft, and the names of protocols, without which it prints `6` for `tcp` and does not read `tcp`.
nft_packages=(nft:nftables /etc/protocols:netbase)

need_cargo() {
    find_cargo || die "cargo is missing. Install Rust $(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml") or newer:
  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y
and open a new shell."
}

# find_cargo: sudo resets PATH, so look where rustup puts cargo: first for the user who called sudo,
# who then also runs it, and owns target/. What finds and runs it is in $cargo, what runs it as the
# caller in $cargo_as_caller.
find_cargo() {
    local home
    cargo=(cargo)
    cargo_as_caller=(cargo)
    if [ "$(id -u)" -eq 0 ] && [ -n "${SUDO_USER:-}" ] && [ "$SUDO_USER" != root ]; then
        home=$(getent passwd "$SUDO_USER" | cut -d: -f6)
        if [ -x "$home/.cargo/bin/cargo" ]; then
            cargo_as_caller=(env "PATH=$home/.cargo/bin:$PATH" "CARGO_HOME=$home/.cargo"
                "RUSTUP_HOME=$home/.rustup" cargo)
            cargo=(sudo -u "$SUDO_USER" -H --preserve-env=RUSTDOCFLAGS "${cargo_as_caller[@]}")
            return
        fi
    fi
    command -v cargo >/dev/null && return
    PATH=${HOME:-/root}/.cargo/bin:$PATH
    command -v cargo >/dev/null
}

run_cargo() { (cd "$root" && "${cargo[@]}" "$@"); }
run_cargo_as_caller() { (cd "$root" && "${cargo_as_caller[@]}" "$@"); }

# target_directory: where cargo puts what it builds, whatever the user configured.
target_directory() {
    run_cargo metadata --format-version 1 --no-deps --locked |
        sed 's/.*"target_directory":"\([^"]*\)".*/\1/'
}
