# Writes the Debian packages and the tarball. scripts/package.sh sources this file.
# shellcheck shell=bash
# shellcheck disable=SC2154

description=" It programs the Services of Kubernetes with nftables: they are elements of
 a few fixed maps. It replaces kube-proxy, and accepts its configuration file
 and flags. Without a cluster, it reads Services and EndpointSlices from a
 directory of YAML files."

# write_deb DIR: kube-dnat_VERSION_ARCHITECTURE.deb.
write_deb() {
    local tree=$work/deb doc depends
    doc=$tree/usr/share/doc/kube-dnat
    install -D -t "$tree/usr/bin" "$work/bin/kube-dnat"
    # The plugin of kubectl is the same program under this name.
    ln -s kube-dnat "$tree/usr/bin/kubectl-dnat"
    install -D -m 644 -t "$tree/usr/lib/systemd/system" "$root/packaging/kube-dnat.service"
    install -D -m 644 -t "$tree/etc/kube-dnat" "$root/packaging/kube-dnat.yaml"
    install -D -m 644 "$root/packaging/kube-dnat.default" "$tree/etc/default/kube-dnat"
    mkdir "$tree/etc/kube-dnat/manifests"
    install -D -m 644 -t "$tree/usr/share/man/man8" "$work"/man/*
    gzip -9 -n "$tree"/usr/share/man/man8/*
    install -D -m 644 "$work/completions/bash" "$tree/usr/share/bash-completion/completions/kube-dnat"
    install -D -m 644 "$work/completions/zsh" "$tree/usr/share/zsh/vendor-completions/_kube-dnat"
    install -D -m 644 "$work/completions/fish" "$tree/usr/share/fish/vendor_completions.d/kube-dnat.fish"
    install -D -m 644 -t "$doc" "$root/packaging/debian/copyright" "$work/kube-dnat.spdx.json"
    install -D -m 644 "$root/packaging/debian/lintian-overrides" "$tree/usr/share/lintian/overrides/kube-dnat"
    install -D -m 644 -t "$doc/examples" "$root"/manifests/examples/*
    install -m 644 "$root/CHANGELOG.md" "$doc/changelog"
    changelog >"$doc/changelog.Debian"
    gzip -9 -n "$doc/changelog" "$doc/changelog.Debian" "$doc/kube-dnat.spdx.json"

    depends=$(library_packages "$tree/usr/bin/kube-dnat")
    mkdir "$tree/DEBIAN"
    install -m 644 "$root/packaging/debian/conffiles" "$tree/DEBIAN"
    install -m 755 "$root"/packaging/debian/{postinst,prerm,postrm} "$tree/DEBIAN"
    control "$tree" kube-dnat net <<TEXT
Depends: $depends, init-system-helpers (>= 1.52)
Recommends: ca-certificates, nftables
Suggests: conntrack
Description: kube-proxy replacement that uses nftables
$description
TEXT
    build_deb "$tree" "$1"
}

# write_debug_deb DIR: kube-dnat-dbgsym, the debug information, which gdb and backtraces find by the
# build ID of the binary in the package and in the image.
write_debug_deb() {
    local tree=$work/dbgsym id file
    id=$(readelf --notes "$work/bin/kube-dnat" | sed -n 's/^ *Build ID: //p')
    [ -n "$id" ] || die "the binary has no build ID"
    file=$tree/usr/lib/debug/.build-id/${id:0:2}/${id:2}.debug
    install -D -m 644 "$work/bin/kube-dnat.debug" "$file"
    mkdir -p "$tree/usr/share/doc"
    ln -s kube-dnat "$tree/usr/share/doc/kube-dnat-dbgsym"
    mkdir "$tree/DEBIAN"
    control "$tree" kube-dnat-dbgsym debug <<TEXT
Depends: kube-dnat (= $deb_version)
Auto-Built-Package: debug-symbols
Build-Ids: $id
Description: debug symbols for kube-dnat
TEXT
    build_deb "$tree" "$1"
}

# write_tarball FILE: the binary that contains libnftnl, with its documents.
write_tarball() {
    local name=kube-dnat-$version-linux-$architecture
    local tree=$work/tarball/$name
    install -D "$work/bin/kube-dnat-static" "$tree/kube-dnat"
    install -D -m 644 -t "$tree" "$root"/{LICENSE,CHANGELOG.md,README.md} "$work/kube-dnat.spdx.json" \
        "$root"/packaging/kube-dnat.{service,yaml,default}
    install -D -m 644 -t "$tree/man" "$work"/man/*
    install -D -m 644 -t "$tree/completions" "$work"/completions/*
    install -D -m 644 -t "$tree/examples" "$root"/manifests/examples/*
    pack "$work/tarball" | gzip "-$level" -n >"$1"
}

changelog() {
    cat <<TEXT
kube-dnat ($deb_version) unstable; urgency=medium

  * Version $version. The file changelog lists the changes.
  * Revision $revision.

 -- $maintainer  $(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")
TEXT
}

# library_packages BINARY: the dependencies on the packages of its libraries. The symbols alone would
# also be in a libnftnl that is too old.
library_packages() {
    mkdir -p "$work/shlibs/debian"
    printf 'Source: kube-dnat\n\nPackage: kube-dnat\nArchitecture: any\n' >"$work/shlibs/debian/control"
    (cd "$work/shlibs" && dpkg-shlibdeps -O "$1" 2>/dev/null) |
        sed 's/^shlibs:Depends=//; s/libnftnl11 (>= [^)]*)/libnftnl11 (>= 1.2.4)/'
}

# control TREE PACKAGE SECTION: writes the control file, with more fields from standard input.
control() {
    local size
    size=$(du -k --apparent-size -s --exclude=DEBIAN "$1" | cut -f 1)
    {
        printf 'Package: %s\nVersion: %s\nArchitecture: %s\n' "$2" "$deb_version" "$architecture"
        [ "$2" = kube-dnat ] || printf 'Source: kube-dnat\n'
        printf 'Maintainer: %s\nSection: %s\nPriority: optional\nInstalled-Size: %s\n' "$maintainer" "$3" "$size"
        cat
    } >"$1/DEBIAN/control"
    (cd "$1" && find . -path ./DEBIAN -prune -o -type f -printf '%P\0' | LC_ALL=C sort -z |
        xargs -0 md5sum >DEBIAN/md5sums)
}

build_deb() {
    # With one thread the bytes do not depend on the number of processors.
    dpkg-deb --root-owner-group -Zxz "-z$level" --threads-max=1 --build "$1" "$2" >/dev/null
}
