#!/bin/bash
# An SCTP association of the kernel's own stack, from a Pod and from the node, through a ClusterIP.
# shellcheck source-path=SCRIPTDIR source=lab.sh
. "$(dirname "$0")/lab.sh"

add_node
add_pod pod-1 11
add_pod client 99
serve pod-1 SCTP 3868
service sctp 10.96.0.1 SCTP 3868 3868 10.244.1.11
start_kube_dnat
wait_until "the server" contains "pod-1 saw" ask client SCTP 10.244.1.11 3868
expect "pod-1 saw 10.244.1.99" ask client SCTP 10.96.0.1 3868
# The INIT names all addresses of the node, and the server prefers one of them.
expect "pod-1 saw 1" ask node SCTP 10.96.0.1 3868
