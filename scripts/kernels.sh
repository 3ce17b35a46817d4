#!/usr/bin/env bash
# Boots kernels of Debian under qemu and runs in each: `kube-dnat check`, tests of tests/net with real
# packets, scripts/kernels/check-*.sh, and the demo with its load. It prints a table of the results, and
# exits non-zero if one failed. It needs root and Debian. It installs missing packages, and it works in
# a temporary folder, which it removes.
#
#   scripts/kernels.sh [VERSION...]   5.10, 6.1, 6.12, backports (Debian's newest); default: all
#   --keep DIR                        work in DIR and keep it: the next run reuses the downloads
#   KERNELS_TESTS="owner:: drift::"   the filters of the tests; `all` runs every test
#   KUBE_DNAT_TEST_PATIENCE=20        the factor of the tests' and the demo's deadlines
#
# Without KVM, qemu emulates the processor, which takes thirty times as long: then a selection of the
# tests is the default.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$root/scripts/lib.sh"
exec </dev/null

keep=''
if [ "${1:-}" = --keep ]; then
    keep=${2:?--keep needs a directory}
    shift 2
fi
versions=("$@")
[ ${#versions[@]} -gt 0 ] || versions=(5.10 6.1 6.12 backports)
[ "$(id -u)" -eq 0 ] || die "run it as root: it unpacks Debian's packages"

# suite_of VERSION: prints the suite of the kernel, its archive, and the release whose programs run on
# it. The libraries of Debian 11 are too old for a binary that is built on Debian 12.
suite_of() {
    case $1 in
        5.10) echo bullseye-security debian-security bookworm ;;
        6.1) echo bookworm-security debian-security bookworm ;;
        6.12) echo trixie-security debian-security trixie ;;
        backports) echo trixie-backports debian trixie ;;
        *) die "unknown version $1: 5.10, 6.1, 6.12 or backports" ;;
    esac
}
for version in "${versions[@]}"; do suite_of "$version" >/dev/null; done

# The packages of a node, with what the tests and the demo call. A test compiles a library.
node_packages=nftables,iproute2,conntrack,nginx-light,dnsmasq-base,libcap2-bin,ipset,ipvsadm,curl
node_packages+=,socat,gcc,libc6-dev,iptables,kmod,procps,netbase,ca-certificates,libnftnl11,libmnl0,util-linux

need_packages "${build_packages[@]}" qemu-system-x86_64:qemu-system-x86 mmdebstrap:mmdebstrap \
    busybox:busybox-static mke2fs:e2fsprogs cpio:cpio xz:xz-utils modprobe:kmod git:git
need_cargo

if [ -n "$keep" ]; then
    mkdir -p "$keep"
    work=$(cd "$keep" && pwd)
else
    work=$(mktemp -d "${TMPDIR:-/tmp}/kube-dnat-kernels.XXXXXX")
fi
machine=
# shellcheck disable=SC2317
clean_up() {
    local status=$?
    trap - EXIT
    if [ -n "$machine" ]; then
        kill "$machine" 2>/dev/null || true
        wait "$machine" || true
    fi
    [ -n "$keep" ] || rm -rf "$work"
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# mirror ARCHIVE: prints the address of that archive (debian, debian-security) in the machine's apt.
mirror() {
    apt-get indextargets --format "\$(CREATED_BY) \$(REPO_URI)" |
        sed -n "s,^Packages \(.*/$1/*\)\$,\1,p" | grep -m 1 . || die "the machine's apt has no archive $1"
}

# download_kernel SUITE ARCHIVE: unpacks the suite's newest kernel for virtual machines into
# $work/SUITE/tree. apt gets a configuration of its own.
download_kernel() {
    local dir=$work/$1 uri options names
    [ ! -e "$dir/unpacked" ] || return 0
    uri=$(mirror "$2")
    rm -rf "$dir"
    mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial" "$dir/debs"
    : >"$dir/status"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $uri $1 main" >"$dir/sources.list"
    options=(-qq -o "Dir::Etc::SourceList=$dir/sources.list" -o Dir::Etc::SourceParts=/dev/null
        -o "Dir::State::Lists=$dir/lists" -o "Dir::Cache=$dir/cache"
        -o "Dir::State::Status=$dir/status" -o APT::Sandbox::User=root)
    apt-get "${options[@]}" update
    # Packages with a version in the name have files; the others only depend on them.
    names=$(apt-cache "${options[@]}" depends --recurse --important linux-image-cloud-amd64 |
        grep -E '^linux-.*[0-9]-cloud-amd64$' | sort -u)
    [ -n "$names" ] || die "$1 has no linux-image-cloud-amd64"
    # shellcheck disable=SC2086
    (cd "$dir/debs" && apt-get "${options[@]}" download $names)
    for package in "$dir"/debs/*.deb; do dpkg -x "$package" "$dir/tree"; done
    touch "$dir/unpacked"
}

# make_distribution RELEASE: creates the image of a minimal Debian, $work/RELEASE.ext4. Of the oldest
# only nft is of interest.
make_distribution() {
    local image=$work/$1.ext4 dir=$work/root packages=$node_packages
    [ "$1" != bullseye ] || packages=nftables,netbase
    [ ! -e "$image" ] || return 0
    rm -rf "$dir"
    mmdebstrap --quiet --variant=minbase --mode=root --include="$packages" "$1" "$dir" "$(mirror debian)" 2>"$work/mmdebstrap-$1.log" ||
        die "mmdebstrap failed: $(tail -n 5 "$work/mmdebstrap-$1.log")"
    mke2fs -q -F -t ext4 -d "$dir" "$image.part" 1500M
    mv "$image.part" "$image"
    rm -rf "$dir"
}

# make_initramfs MODULES RELEASE FILE: packs busybox and the modules that mount the images, in order.
make_initramfs() {
    local dir=$work/initramfs module name
    rm -rf "$dir"
    mkdir -p "$dir/bin" "$dir/modules" "$dir/dev"
    cp "$(command -v busybox)" "$dir/bin/"
    install -m 755 "$root/scripts/kernels/initramfs.sh" "$dir/init"
    for module in virtio_pci virtio_blk ext4 overlay; do
        modprobe --dirname "$1" --set-version "$2" --show-depends "$module"
    done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | awk '!seen[$0]++' | while read -r module; do
        name=$(basename "$module")
        case $module in
            *.xz) xz -dc "$module" >"$dir/modules/${name%.xz}" ;;
            *) cp "$module" "$dir/modules/$name" ;;
        esac
        echo "${name%.xz}"
    done >"$work/order"
    mv "$work/order" "$dir/modules/order"
    (cd "$dir" && find . | cpio --quiet -o -H newc) | gzip -1 >"$3"
}

# make_run MODULES RELEASE FILE: creates the image with the kernel's modules, this tree and the binaries.
# They keep their paths, which are compiled into the tests.
make_run() {
    local dir=$work/run
    rm -rf "$dir"
    mkdir -p "$dir/usr/lib/modules" "$dir/usr/local/lib/kernels" "$dir/etc" "$dir$root" "$dir$target/release" \
        "$dir$target/tmp"
    cp -r "$1/lib/modules/$2" "$dir/usr/lib/modules/"
    install -m 755 "$root"/scripts/kernels/*.sh "$dir/usr/local/lib/kernels/"
    (cd "$root" && git ls-files -z | cpio --quiet -0 -pdm "$dir$root")
    strip --strip-debug -o "$dir$target/release/kube-dnat" "$target/release/kube-dnat"
    strip --strip-debug -o "$dir$target/release/net-tests" "$tests"
    printf 'tree=%q\ntarget=%q\nfilters=%q\nlimit=%q\nreleases=%q\nexport KUBE_DNAT_TEST_PATIENCE=%q\n' \
        "$root" "$target" "$filters" "$limit" "${releases[*]}" "$KUBE_DNAT_TEST_PATIENCE" >"$dir/etc/kernels.conf"
    rm -f "$3"
    mke2fs -q -t ext4 -d "$dir" "$3" 900M
    rm -rf "$dir"
}

# boot SECONDS ACCELERATION KERNEL INITRAMFS LOG [DISK...]: writes the console to LOG and the results
# to LOG.results.
boot() {
    local seconds=$1 kernel=$3 initramfs=$4 log=$5 disk arguments
    case $2 in
        kvm) arguments=(-accel kvm -cpu "host,-arch-capabilities") ;;
        *) arguments=(-accel "tcg,thread=multi" -cpu max) ;;
    esac
    shift 5
    for disk in "$@"; do arguments+=(-drive "if=virtio,format=raw,readonly=on,file=$disk"); done
    timeout "$seconds" nice -n 10 qemu-system-x86_64 "${arguments[@]}" -m 5120 -smp 2 -display none \
        -monitor none -serial "file:$log" -serial "file:$log.results" -no-reboot -nic none \
        -kernel "$kernel" -initrd "$initramfs" -append "console=ttyS0 panic=-1 quiet" &
    machine=$!
    wait "$machine" || true
    machine=
}

# The tests without KVM: what depends on the kernel or on nft, in about ten minutes.
selection='topology:: commit:: adopt:: golden:: owner:: drift:: rejections:: rejected:: cluster_ip::'
selection+=' sctp:: hairpin:: takeover status:: commands::'

# choose_acceleration KERNEL INITRAMFS: a /dev/kvm can exist and boot no kernel of a distribution. The
# initramfs alone finds no disk, and the kernel says so.
choose_acceleration() {
    [ -z "${acceleration:-}" ] || return 0
    acceleration=tcg
    if [ -w /dev/kvm ]; then
        boot 20 kvm "$1" "$2" "$work/kvm" 2>"$work/kvm.errors"
        if grep -a -q 'mount:' "$work/kvm"; then acceleration=kvm; fi
    fi
    if [ "$acceleration" = kvm ]; then
        : "${KUBE_DNAT_TEST_PATIENCE:=2}" "${KERNELS_TESTS=all}"
        limit=1200
    else
        : "${KUBE_DNAT_TEST_PATIENCE:=20}" "${KERNELS_TESTS=$selection}"
        limit=400
    fi
    filters=$KERNELS_TESTS
    printf 'Acceleration: %s. Tests: %s. Factor of deadlines: %s.\n' \
        "$acceleration" "$filters" "$KUBE_DNAT_TEST_PATIENCE"
}

headline "Build kube-dnat, the tests and the root file systems"
target=$(realpath "$(target_directory)")
built=$(run_cargo test --release --test net --no-run --locked 2>&1) || die "cargo failed: $built"
tests=$(cd "$root" && realpath "$(sed -n 's/.*(\(.*\))$/\1/p' <<<"$built" | tail -n 1)")

releases=(bullseye bookworm trixie)
images=()
for release in "${releases[@]}"; do
    make_distribution "$release"
    images+=("$work/$release.ext4")
done

for version in "${versions[@]}"; do
    read -r suite archive release < <(suite_of "$version")
    headline "Linux $version ($suite), programs of $release"
    download_kernel "$suite" "$archive"
    tree=$work/$suite/tree
    # Debian 12 and older have /lib/modules; newer ones have it in /usr.
    modules=$tree
    [ -d "$tree/lib/modules" ] || modules=$tree/usr
    kernel_release=$(basename "$modules"/lib/modules/*)
    depmod --basedir "$modules" "$kernel_release"
    kernel=$(find "$tree" -name 'vmlinuz*' -type f | head -n 1)
    make_initramfs "$modules" "$kernel_release" "$work/initramfs.gz"
    choose_acceleration "$kernel" "$work/initramfs.gz"
    make_run "$modules" "$kernel_release" "$work/run.ext4"
    log=$work/$version.log
    boot 3600 "$acceleration" "$kernel" "$work/initramfs.gz" "$log" \
        "$work/$release.ext4" "$work/run.ext4" "${images[@]}"
    grep -q '^FINISHED' "$log.results" || echo 'RESULT finish FAILED' >>"$log.results"
    grep -E '^(FACT|RESULT)' "$log.results"
    if grep -q '^RESULT [^ ]* FAILED' "$log.results"; then tr -d '\r' <"$log" | sed 's/^/| /'; fi
done

# results FILE...: prints a table, one row per result and one column per file.
results() {
    awk '
        FNR == 1 { columns++ }
        $1 == "FACT" && $2 == "kernel" { head[columns] = "Linux " $3 }
        $1 == "FACT" && $2 == "nft" && NF == 3 { head[columns] = head[columns] ", nft " $3 }
        $1 == "RESULT" {
            if (!($2 in row)) { row[$2] = ++rows; name[rows] = $2 }
            detail = $0
            sub(/^RESULT [^ ]* [^ ]* */, "", detail)
            sub(/,? *[0-9]* s$/, "", detail)
            cell[row[$2], columns] = ($3 == "ok" ? (detail == "" ? "ok" : detail) : "**FAILED** " detail)
        }
        END {
            line = "| |"; rule = "|---|"
            for (c = 1; c <= columns; c++) { line = line " " head[c] " |"; rule = rule "---|" }
            print line; print rule
            for (r = 1; r <= rows; r++) {
                line = "| " name[r] " |"
                for (c = 1; c <= columns; c++) line = line " " ((r, c) in cell ? cell[r, c] : "-") " |"
                print line
            }
        }' "$@"
}

headline "Results"
files=()
for version in "${versions[@]}"; do files+=("$work/$version.log.results"); done
results "${files[@]}"
grep -h '^FACT' "${files[@]}" | sed -n 's/^FACT \(nft .*: .*\|an .*\)/\1/p' | sort -u
if grep -q '^RESULT [^ ]* FAILED' "${files[@]}"; then exit 1; fi
