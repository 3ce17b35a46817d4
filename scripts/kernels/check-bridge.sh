#!/bin/bash
# Pods on one bridge: a Service needs br_netfilter for a Pod of the same bridge, and a hairpin port for
# the client's own Pod. `kube-dnat check` reports a missing br_netfilter.
# shellcheck source-path=SCRIPTDIR source=lab.sh
. "$(dirname "$0")/lab.sh"

bridge_netfilter() { on node sh -c "echo $1 >/proc/sys/net/bridge/bridge-nf-call-iptables"; }

add_node
modprobe br_netfilter
bridge_netfilter 0
add_pod pod-1 11 cni0
add_pod pod-2 12 cni0
serve pod-1 TCP 8080
serve pod-2 TCP 8080
service other 10.96.0.1 TCP 80 8080 10.244.1.12
service self 10.96.0.2 TCP 80 8080 10.244.1.11
start_kube_dnat
wait_until "the servers" contains "pod-2 saw" ask pod-1 TCP 10.244.1.12 8080

if contains "pod-2 saw" ask pod-1 TCP 10.96.0.1 80; then fail "answered without bridge-nf-call-iptables"; fi
expect "bridge-nf-call-iptables" on node "$program" check
bridge_netfilter 1
expect "pod-2 saw 10.244.1.11" ask pod-1 TCP 10.96.0.1 80
if contains "pod-1 saw" ask pod-1 TCP 10.96.0.2 80; then fail "answered without a hairpin port"; fi
ip -n node link set to-pod-1 type bridge_slave hairpin on
expect "pod-1 saw 10.244.1.1" ask pod-1 TCP 10.96.0.2 80
