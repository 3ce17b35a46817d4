#!/bin/bash
# What kube-proxy in mode ipvs leaves behind is removed: virtual servers, kube-ipvs0 with the
# ClusterIPs, IP sets, and the rules that use them.
# shellcheck source-path=SCRIPTDIR source=lab.sh
. "$(dirname "$0")/lab.sh"

# leave_ipvs: does what kube-proxy in mode ipvs does on a node.
leave_ipvs() {
    ip -n node link add kube-ipvs0 type dummy
    ip -n node address add 10.96.0.1/32 dev kube-ipvs0
    on node ipvsadm --add-service --tcp-service 10.96.0.1:80 --scheduler rr
    on node ipvsadm --add-server --tcp-service 10.96.0.1:80 --real-server 10.244.1.11:8080 --masquerading
    on node ipset create KUBE-CLUSTER-IP hash:ip,port
    on node ipset add KUBE-CLUSTER-IP 10.96.0.1,tcp:80
    on node iptables-nft -t nat -N KUBE-SERVICES
    on node iptables-nft -t nat -A PREROUTING -j KUBE-SERVICES
    on node iptables-nft -t nat -A KUBE-SERVICES -m set --match-set KUBE-CLUSTER-IP dst,dst -j ACCEPT
}
assert_removed() {
    [ -z "$(on node ipvsadm --save --numeric)" ] || fail "virtual servers: $(on node ipvsadm --save --numeric)"
    if ip -n node link show kube-ipvs0 2>/dev/null; then fail "kube-ipvs0 exists"; fi
    [ -z "$(on node ipset list --name)" ] || fail "IP sets: $(on node ipset list --name)"
    if on node iptables-nft-save | grep KUBE-; then fail "chains of kube-proxy"; fi
}

add_node
add_pod pod-1 11
add_pod pod-2 12
serve pod-1 TCP 8080
leave_ipvs
expect "kube-ipvs0" on node "$program" check
on node "$program" cleanup --kube-proxy
assert_removed

leave_ipvs
service web 10.96.0.1 TCP 80 8080 10.244.1.11
flags=(--takeover)
start_kube_dnat
removed() { (assert_removed) >"$dir/left" 2>&1; }
wait_until "everything is removed" removed
expect "pod-1 saw 10.244.1.12" ask pod-2 TCP 10.96.0.1 80
