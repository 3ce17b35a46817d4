# Writes the image as an OCI archive. scripts/package.sh sources this file.
# shellcheck shell=bash
# shellcheck disable=SC2154

# write_image ROOTFS FILE: the archive is an OCI layout with an image of one layer, and has the file
# manifest.json that `docker load` reads. `podman load`, `ctr image import` and skopeo read it too.
write_image() {
    local layout=$work/image layer config manifest diff_id name=${IMAGE:-localhost/kube-dnat:$version}
    mkdir -p "$layout/blobs/sha256"
    pack "$1" >"$work/layer.tar"
    diff_id=$(digest "$work/layer.tar")
    gzip "-$level" -n -c "$work/layer.tar" >"$work/blob"
    layer=$(add_blob application/vnd.oci.image.layer.v1.tar+gzip)

    jq -n --arg created "$created" --arg architecture "$architecture" --arg diff_id "$diff_id" \
        --argjson labels "$(image_labels)" '{
        created: $created, architecture: $architecture, os: "linux",
        config: {
            User: "0:0", Entrypoint: ["/usr/local/bin/kube-dnat"], Labels: $labels,
            Env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
        },
        rootfs: {type: "layers", diff_ids: [$diff_id]},
        history: [{created: $created, created_by: "scripts/rootfs.sh"}]
    }' >"$work/blob"
    config=$(add_blob application/vnd.oci.image.config.v1+json)

    jq -n --argjson config "$config" --argjson layer "$layer" '{
        schemaVersion: 2, mediaType: "application/vnd.oci.image.manifest.v1+json",
        config: $config, layers: [$layer]
    }' >"$work/blob"
    manifest=$(add_blob application/vnd.oci.image.manifest.v1+json)

    jq -n --argjson manifest "$manifest" --arg name "$name" --arg architecture "$architecture" '{
        schemaVersion: 2, mediaType: "application/vnd.oci.image.index.v1+json",
        manifests: [$manifest + {
            platform: {architecture: $architecture, os: "linux"},
            annotations: {
                "io.containerd.image.name": $name,
                "org.opencontainers.image.ref.name": ($name | sub(".*:"; ""))
            }
        }]
    }' >"$layout/index.json"
    jq -n '{imageLayoutVersion: "1.0.0"}' >"$layout/oci-layout"
    jq -n --argjson config "$config" --argjson layer "$layer" --arg name "$name" '
        def path: "blobs/" + (.digest | sub(":"; "/"));
        [{Config: ($config | path), RepoTags: [$name], Layers: [$layer | path]}]
    ' >"$layout/manifest.json"
    pack "$layout" >"$2"
}

# The labels of the Dockerfile, as JSON.
image_labels() {
    sed -n 's/.*\(org\.opencontainers\.image\.[a-z]*\)="\(.*\)".*/\1\t\2/p' "$root/Dockerfile" |
        jq -R -s --arg version "$version" --arg revision "$revision" '
            split("\n") | map(select(. != "") | split("\t")
                | {key: .[0], value: (.[1] | sub("\\$\\{VERSION\\}"; $version) | sub("\\$\\{REVISION\\}"; $revision))})
            | from_entries'
}

digest() { printf 'sha256:%s' "$(sha256sum "$1" | cut -d ' ' -f 1)"; }

# add_blob TYPE: moves $work/blob into the layout, and prints its descriptor.
add_blob() {
    local digest size
    digest=$(digest "$work/blob")
    size=$(stat -c %s "$work/blob")
    mv "$work/blob" "$layout/blobs/sha256/${digest#sha256:}"
    jq -n --arg type "$1" --arg digest "$digest" --argjson size "$size" \
        '{mediaType: $type, digest: $digest, size: $size}'
}
