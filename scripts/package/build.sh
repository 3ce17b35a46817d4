# Builds the binaries of the packages. scripts/package.sh sources this file.
# shellcheck shell=bash
# shellcheck disable=SC2154

# build_binaries DIR: builds DIR/kube-dnat, which links libnftnl and libmnl dynamically, and
# DIR/kube-dnat-static, which contains libnftnl. Both have debug information.
build_binaries() {
    local profile=${PROFILE:-release} target output archive arguments
    target=$(target_directory)
    export KUBE_DNAT_REVISION=$revision
    if [ "$profile" = release ]; then
        # A directory of its own: the flags differ from those of other builds.
        target=$target/package
        forget_paths
    fi
    output=$target/${profile/#dev/debug}/kube-dnat
    arguments=(rustc --profile "$profile" --locked --bin kube-dnat --target-dir "$target"
        -- -C "link-arg=-Wl,--build-id=sha1")
    run_cargo_as_caller "${arguments[@]}"
    install -D -t "$1" "$output"

    # libnftnl has a static archive in Debian, libmnl has none. The linker prefers a shared library of the
    # same directory, so the archive is alone in its directory.
    archive=$(pkg-config --variable=libdir libnftnl)/libnftnl.a
    [ -e "$archive" ] || die "$archive is missing: this libnftnl-dev has no static library"
    mkdir -p "$target/static"
    cp "$archive" "$target/static"
    run_cargo_as_caller "${arguments[@]}" -L "native=$target/static" -C link-arg=-lmnl
    install "$output" "$1/kube-dnat-static"
}

# forget_paths: the bytes of the binaries shall depend neither on the path of the repository nor on that
# of cargo's directory.
forget_paths() {
    local rustc=rustc sysroot hash map
    [ "${cargo_as_caller[0]}" = cargo ] || rustc=$(dirname "${cargo_as_caller[1]#PATH=}")/rustc
    sysroot=$("$rustc" --print sysroot)
    hash=$("$rustc" --version --verbose | sed -n 's/^commit-hash: //p')
    RUSTFLAGS='' CFLAGS=''
    # The last match applies: the repository can be below the others.
    for map in "$sysroot/lib/rustlib/src/rust=/rustc/$hash" "${CARGO_HOME:-$HOME/.cargo}=/usr/src/cargo" \
        "$root=/usr/src/kube-dnat"; do
        RUSTFLAGS+=" --remap-path-prefix=$map"
        CFLAGS+=" -ffile-prefix-map=$map"
    done
    export RUSTFLAGS CFLAGS
}
