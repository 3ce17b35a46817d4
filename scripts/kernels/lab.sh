# Functions of the checks in a virtual machine of scripts/kernels.sh: a node, its Pods with servers, and
# kube-dnat with Services. A check runs in the repository and has the machine to itself.
# shellcheck shell=bash
set -euo pipefail

dir=$(mktemp -d)
program=${target:?}/release/kube-dnat
patience=$((10 * KUBE_DNAT_TEST_PATIENCE))

clean_up() {
    local status=$? pid
    trap - EXIT
    for pid in $(jobs -pr); do kill -9 "$pid" || true; done
    if [ "$status" -ne 0 ] && [ -s "$dir/log" ]; then cat "$dir/log"; fi
    ip -all netns delete
    rm -rf "$dir"
    exit "$status"
}
trap clean_up EXIT

fail() {
    printf 'FAILED: %s\n' "$*"
    exit 1
}
# wait_until DESCRIPTION COMMAND...
wait_until() {
    local description=$1 deadline=$((SECONDS + patience))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$deadline" ] || fail "not within $patience seconds: $description"
        sleep 0.1
    done
}
on() { ip netns exec "$@"; }
# contains TEXT COMMAND...: succeeds if the output of the command contains the text.
contains() {
    local output
    output=$("${@:2}" 2>&1) || true
    case $output in *"$1"*) ;; *) return 1 ;; esac
}
# expect TEXT COMMAND...
expect() {
    local output
    output=$("${@:2}" 2>&1) || true
    case $output in *"$1"*) ;; *) fail "${*:2}: expected \"$1\", got \"$output\"" ;; esac
}

# add_namespace NAME
add_namespace() {
    ip netns add "$1"
    ip -n "$1" link set lo up
}
# add_node: adds a node with a default route and a bridge, 10.244.1.1, for Pods.
add_node() {
    add_namespace node
    on node sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding'
    ip -n node link add outside type dummy
    ip -n node address add 192.168.77.2/24 dev outside
    ip -n node link set outside up
    ip -n node route add default via 192.168.77.1
    ip -n node link add cni0 type bridge
    ip -n node address add 10.244.1.1/24 dev cni0
    ip -n node link set cni0 up
}
# add_pod NAME NUMBER [BRIDGE]: adds a Pod, 10.244.1.NUMBER, with a link to the node or to its bridge.
add_pod() {
    add_namespace "$1"
    ip -n node link add "to-$1" type veth peer name eth0 netns "$1"
    ip -n "$1" link set eth0 up
    ip -n node link set "to-$1" up
    if [ -n "${3:-}" ]; then
        ip -n node link set "to-$1" master "$3"
        ip -n "$1" address add "10.244.1.$2/24" dev eth0
    else
        ip -n "$1" address add "10.244.1.$2/32" dev eth0
        ip -n "$1" route add 10.244.1.1 dev eth0
        ip -n node route add "10.244.1.$2/32" dev "to-$1"
    fi
    ip -n "$1" route add default via 10.244.1.1
}
# serve NAME PROTOCOL PORT: starts a server that answers with its name and the client's address.
serve() {
    on "$1" socat "$2-LISTEN:$3,fork,reuseaddr" "SYSTEM:echo $1 saw \$SOCAT_PEERADDR" &
}
# ask NAME PROTOCOL ADDRESS PORT: prints the answer.
ask() { on "$1" socat -u -T 5 "$2:$3:$4,connect-timeout=3" - </dev/null; }

# service NAME CLUSTER_IP PROTOCOL PORT TARGET_PORT ENDPOINT...: writes a manifest.
service() {
    local name=$1 address=$2 protocol=$3 port=$4 target=$5
    shift 5
    cat >"$dir/.new" <<END_OF_MANIFEST
apiVersion: v1
kind: Service
metadata: {namespace: shop, name: $name}
spec:
  clusterIP: $address
  ports: [{port: $port, protocol: $protocol, targetPort: $target}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {namespace: shop, name: $name-1, labels: {kubernetes.io/service-name: $name}}
addressType: IPv4
ports: [{name: "", port: $target, protocol: $protocol}]
endpoints:
$(printf -- '- {addresses: [%s], conditions: {ready: true}, nodeName: node-1}\n' "$@")
END_OF_MANIFEST
    mkdir -p "$dir/manifests"
    mv "$dir/.new" "$dir/manifests/$name.yaml"
}
# start_kube_dnat: starts the daemon with $flags on the node, and waits for its first sync.
flags=()
start_kube_dnat() {
    on node "$program" run --manifests "$dir/manifests" --hostname-override node-1 \
        --cluster-cidr 10.244.0.0/16 "${flags[@]}" 2>"$dir/log" &
    wait_until "the first sync" grep -q first_sync_committed "$dir/log"
}
