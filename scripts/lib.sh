# Functions that the other scripts share: colours, missing packages, cargo. The scripts source this
# file. $root is the repository.
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

# need_packages WHAT:PACKAGE...: installs each Debian package whose WHAT is missing: a program, a
# pkg-config module (NAME.pc) or a file (/PATH). For other users than root, it prints the command.
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
    command -v apt-get >/dev/null || die "missing: ${missing[*]} (Debian package names). Install them and retry."
    [ "$(id -u)" -eq 0 ] || die "missing packages. Run 'apt-get install ${missing[*]}' as root and retry."
    printf 'Installing %s\n' "${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # The service of a package (nginx) must not start: the scripts run programs by hand. policy-rc.d is
    # Debian's way to prevent it. An existing policy-rc.d is kept.
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
    # It must not start at the next boot either.
    local service
    for service in nginx prometheus; do
        case " ${missing[*]} " in
            *" $service"[\ -]*) update-rc.d "$service" disable >/dev/null 2>&1 || true ;;
        esac
    done
}

# The packages that cargo needs to build kube-dnat, for need_packages. gcc alone cannot link: the files
# of the C library are in another package.
build_packages=(pkg-config:pkg-config cc:gcc /usr/include/stdio.h:libc6-dev
    libnftnl.pc:libnftnl-dev libmnl.pc:libmnl-dev)
# nft, and the names of protocols. Without them nft prints `6` for `tcp` and cannot read `tcp`.
nft_packages=(nft:nftables /etc/protocols:netbase)

need_cargo() {
    find_cargo || die "cargo is missing. Install Rust $(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml") or newer:
  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y
and open a new shell."
}

# find_cargo: sudo resets PATH, so this looks in rustup's directory. It first tries the user who called
# sudo. That user then also runs cargo and owns target/. $cargo is the command that runs cargo as that
# user, $cargo_as_caller runs it as the current user.
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

# target_directory: prints cargo's target directory, also if the user has configured another one.
target_directory() {
    run_cargo metadata --format-version 1 --no-deps --locked |
        sed 's/.*"target_directory":"\([^"]*\)".*/\1/'
}
