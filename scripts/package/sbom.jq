# Writes an SPDX 2.3 document from `cargo metadata`: kube-dnat and the crates that are linked into it
# or generate its code, then the Debian packages of the image. Arguments: $created, $revision,
# $checksums (lines of name, version and SHA-256, from Cargo.lock), $debian (lines of package, version
# and architecture).

def table: split("\n") | map(select(. != "") | split("\t"));
def spdx_id(prefix): prefix + gsub("[^A-Za-z0-9.-]"; "-");
# The registry of crates accepted `MIT/Apache-2.0` before it required an SPDX expression.
def license: if . == null then "NOASSERTION" else gsub(" */ *"; " OR ") end;

. as $metadata
| ($metadata.resolve.nodes | map({key: .id, value: .}) | from_entries) as $nodes
| ($metadata.packages | map({key: .id, value: .}) | from_entries) as $packages
| ($checksums | table | map({key: (.[0] + " " + .[1]), value: .[2]}) | from_entries) as $sums
# The normal dependencies of a crate: neither those of its tests nor those of build scripts.
| def needs($id): $nodes[$id].deps[] | select(any(.dep_kinds[]; .kind == null)) | .pkg;
  def reach($seen; $todo):
    if $todo == [] then $seen
    else ($seen + $todo | unique) as $all
      | reach($all; [$todo[] | needs(.)] | unique | . - $all)
    end;
  $metadata.resolve.root as $root
| reach([]; [$root]) as $used
| def id($package): $package.name + "-" + $package.version | spdx_id("SPDXRef-crate-");
  ($debian | table | map({
      name: .[0], version: .[1], architecture: .[2], id: (.[0] | spdx_id("SPDXRef-debian-"))
  })) as $libraries
| {
    spdxVersion: "SPDX-2.3",
    dataLicense: "CC0-1.0",
    SPDXID: "SPDXRef-DOCUMENT",
    name: ("kube-dnat-" + $packages[$root].version),
    documentNamespace: ("urn:kube-dnat:sbom:" + $packages[$root].version + ":" + $revision + ":" + $architecture),
    creationInfo: {created: $created, creators: ["Organization: kube-dnat", "Tool: cargo-metadata"]},
    packages: ([$used[] | $packages[.] | {
        name, SPDXID: id(.), versionInfo: .version,
        downloadLocation: "NOASSERTION", filesAnalyzed: false,
        licenseConcluded: "NOASSERTION", licenseDeclared: (.license | license), copyrightText: "NOASSERTION",
        externalRefs: [{
            referenceCategory: "PACKAGE-MANAGER", referenceType: "purl",
            referenceLocator: ("pkg:cargo/" + .name + "@" + (.version | gsub("\\+"; "%2B")))
        }],
        checksums: ($sums[.name + " " + .version] | if . == null then [] else [{algorithm: "SHA256", checksumValue: .}] end)
    }] + [$libraries[] | {
        name, SPDXID: .id, versionInfo: .version,
        downloadLocation: "NOASSERTION", filesAnalyzed: false,
        licenseConcluded: "NOASSERTION", licenseDeclared: "NOASSERTION", copyrightText: "NOASSERTION",
        externalRefs: [{
            referenceCategory: "PACKAGE-MANAGER", referenceType: "purl",
            referenceLocator: ("pkg:deb/" + $distribution + "/" + .name + "@" + (.version | @uri) + "?arch=" + .architecture)
        }]
    }]),
    relationships: ([{
        spdxElementId: "SPDXRef-DOCUMENT", relationshipType: "DESCRIBES", relatedSpdxElement: id($packages[$root])
    }] + [$used[] as $from | needs($from) as $to | {
        spdxElementId: id($packages[$from]), relationshipType: "DEPENDS_ON", relatedSpdxElement: id($packages[$to])
    }] + [$libraries[] | {
        spdxElementId: id($packages[$root]), relationshipType: "DEPENDS_ON", relatedSpdxElement: .id
    }])
}
