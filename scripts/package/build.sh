# Builds the binaries of the packages. scripts/package.sh sources this file.
# shellcheck shell=bash
# shellcheck disable=SC2154

# build_binaries DIR: builds DIR/kube-dnat, which links libnftnl and libmnl dynamically, and
# DIR/kube-dnat-static, which contains libnftnl. Both have debug information. Their bytes depend neither
# on the path of the repository nor on that of cargo's directory.
build_binaries() {
    local rustc=rustc sysroot hash maps map target archive
    [ "${cargo_as_caller[0]}" = cargo ] || rustc=$(dirname "${cargo_as_caller[1]#PATH=}")/rustc
    sysroot=$("$rustc" --print sysroot)
    hash=$("$rustc" --version --verbose | sed -n 's/^commit-hash: //p')
    # The last match applies: the target directory can be below the others.
    maps=("$sysroot/lib/rustlib/src/rust=/rustc/$hash" "${CARGO_HOME:-$HOME/.cargo}=/usr/src/cargo"
        "$root=/usr/src/kube-dnat")
    RUSTFLAGS='-C link-arg=-Wl,--build-id=sha1' CFLAGS=
    for map in "${maps[@]}"; do
        RUSTFLAGS+=" --remap-path-prefix=$map"
        CFLAGS+=" -ffile-prefix-map=$map"
    done
    export RUSTFLAGS CFLAGS KUBE_DNAT_REVISION=$revision
    # A directory of its own: the flags differ from those of other builds.
    target=$(target_directory)/package
    run_cargo_as_caller build --release --locked --bin kube-dnat --target-dir "$target"
    install -D -t "$1" "$target/release/kube-dnat"

    # libnftnl has a static archive in Debian, libmnl has none. The linker prefers a shared library of the
    # same directory, so the archive is alone in its directory.
    archive=$(pkg-config --variable=libdir libnftnl)/libnftnl.a
    [ -e "$archive" ] || die "$archive is missing: this libnftnl-dev has no static library"
    mkdir -p "$target/static"
    cp "$archive" "$target/static"
    run_cargo_as_caller rustc --release --locked --bin kube-dnat --target-dir "$target" \
        -- -L "native=$target/static"
    install "$target/release/kube-dnat" "$1/kube-dnat-static"
}
