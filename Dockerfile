# The image of kube-dnat:        docker build --tag kube-dnat .
# With the revision:            docker build --build-arg REVISION="$(git rev-parse HEAD)" .
# The same with nft, conntrack:  docker build --tag kube-dnat:debug --target debug .
#
# scripts/rootfs.sh assembles the content from the binary and Debian packages. A test runs the result
# without Docker, with the privileges of the DaemonSet (tests/net/packets/image.rs).
ARG DEBIAN=trixie
FROM rust:1.95-slim-${DEBIAN} AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        ca-certificates conntrack gcc libc6-dev libmnl-dev libnftnl-dev netbase nftables pkg-config \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Cargo.toml Cargo.lock LICENSE ./
COPY scripts/lib.sh scripts/rootfs.sh scripts/
COPY src src
ARG REVISION=unknown
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    KUBE_DNAT_REVISION="${REVISION}" cargo build --release --locked \
    && scripts/rootfs.sh /rootfs \
    && scripts/rootfs.sh /rootfs-debug --debug

FROM scratch AS common
ARG VERSION=0.1.0
ARG REVISION=unknown
# The image contains the libraries libnftnl (GPL), libmnl and glibc (LGPL). /usr/share/doc has the
# licences, /var/lib/dpkg/status.d has the packages and versions.
LABEL org.opencontainers.image.title="kube-dnat" \
    org.opencontainers.image.description="A kube-proxy replacement: Kubernetes Services as elements of a few nftables maps" \
    org.opencontainers.image.licenses="Apache-2.0 AND GPL-2.0-or-later AND LGPL-2.1-or-later" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
# Root, with the one capability of the DaemonSet. Kubernetes gives added capabilities to no other user:
# they would have to be file capabilities of the binary, which have no effect if
# allowPrivilegeEscalation is false.
USER 0:0
ENTRYPOINT ["/usr/local/bin/kube-dnat"]

# With nft and conntrack: kubectl exec ... -- nft list table ip kube-dnat
FROM common AS debug
COPY --from=build /rootfs-debug /

FROM common
COPY --from=build /rootfs /
