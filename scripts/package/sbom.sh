# Writes the SBOM of the packages. scripts/package.sh sources this file.
# shellcheck shell=bash
# shellcheck disable=SC2154

# write_sbom ROOTFS FILE: describes kube-dnat, its crates, and the Debian packages of the image in ROOTFS.
write_sbom() {
    local debian checksums distribution
    debian=$(for file in "$1"/var/lib/dpkg/status.d/*; do
        case $file in *.md5sums) continue ;; esac
        sed -n 's/^Package: //p; s/^Version: //p; s/^Architecture: //p' "$file" | paste -s
    done | awk -F '\t' -v OFS='\t' '{ print $1, $3, $2 }')
    checksums=$(awk -v OFS='\t' -F '"' '/^name = /{ name = $2 } /^version = /{ version = $2 }
        /^checksum = /{ print name, version, $2 }' "$root/Cargo.lock")
    distribution=$(sed -n 's/^ID=//p' "$1/etc/os-release")
    run_cargo_as_caller metadata --format-version 1 --locked --filter-platform "$target_triple" |
        jq --from-file "$root/scripts/package/sbom.jq" --sort-keys \
            --arg created "$created" --arg revision "$revision" --arg architecture "$architecture" \
            --arg checksums "$checksums" --arg debian "$debian" --arg distribution "$distribution" >"$2"
}
