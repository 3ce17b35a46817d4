#!/usr/bin/env bash
# Shows kube-dnat at work on one machine, without a cluster. The node, the Pods with real servers, and
# the clients are network namespaces; the Services come from manifests/examples/. The script needs root,
# Debian 12, Ubuntu 24.04 or newer, and cargo. It installs missing Debian packages, builds the release
# binary, and leaves neither a process nor a namespace behind. It exits non-zero if a result differs
# from what it announces.
#
#   KUBE_DNAT=/path/to/kube-dnat   use this binary instead of building one
#   KUBE_DNAT_TEST_PATIENCE=8      the factor of all deadlines, for a slow machine
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$root/scripts/lib.sh"
exec </dev/null

# --- output ----------------------------------------------------------------------------------------

failures=0
say() { printf '   %s\n' "$*"; }
pass() { printf '   %s✓%s %s\n' "$green" "$plain" "$*"; }
fail() {
    printf '   %s✗ %s%s\n' "$red" "$*" "$plain"
    failures=$((failures + 1))
}
# check DESCRIPTION COMMAND...: the command tests whether the description is true.
check() {
    local description=$1
    shift
    if "$@"; then pass "$description"; else fail "$description"; fi
}
indent() { sed 's/^/   /'; }

# --- cleanup ---------------------------------------------------------------------------------------

prefix=kube-dnat-demo-$$
tmp=
daemon=
namespaces=()
if [ -e /proc/sys/net/ipv6 ]; then ipv6_on=true; else ipv6_on=false; fi

clean_up() {
    local status=$? pid name
    trap - EXIT
    trap '' INT TERM HUP
    if [ "$status" -ne 0 ] && [ -n "$tmp" ] && [ -s "$tmp/kube-dnat.log" ]; then
        printf '\nThe last lines of kube-dnat'\''s log:\n' >&2
        tail -n 20 "$tmp/kube-dnat.log" | indent >&2
    fi
    for pid in $(jobs -pr); do kill "$pid" 2>/dev/null || true; done
    wait
    for name in "${namespaces[@]}"; do ip netns del "$name" 2>/dev/null || true; done
    [ -z "$tmp" ] || rm -rf "$tmp"
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# --- namespaces, servers, clients ------------------------------------------------------------------

# in_ns NAME COMMAND...: runs the command in the namespace NAME of the demo.
in_ns() { ip netns exec "$prefix-$1" "${@:2}"; }
# start NAME COMMAND...: the same in the background, until clean_up; $started is the process id.
start() {
    ip netns exec "$prefix-$1" "${@:2}" &
    started=$!
}

# set_sysctl NAMESPACE KEY VALUE: sets a sysctl. The key is a path.
set_sysctl() { in_ns "$1" sh -c "echo $3 >/proc/sys/net/$2"; }

add_namespace() {
    ip netns add "$prefix-$1"
    namespaces+=("$prefix-$1")
    if $ipv6_on; then
        set_sysctl "$1" ipv6/conf/all/disable_ipv6 0
        set_sysctl "$1" ipv6/conf/default/disable_ipv6 0
        # Without duplicate address detection an address is usable as soon as it exists.
        set_sysctl "$1" ipv6/conf/default/accept_dad 0
    fi
    ip -n "$prefix-$1" link set lo up
}

# add_host NAME IPV4 IPV6 GATEWAY4 GATEWAY6: adds a namespace with one link to the node, which routes
# both addresses to it. The links are created inside the namespaces, not in the machine's own network.
add_host() {
    local name=$1 ipv4=$2 ipv6=$3 gateway4=$4 gateway6=$5
    local host=$prefix-$name node=$prefix-node
    add_namespace "$name"
    ip -n "$node" link add name "to-$name" type veth peer name eth0 netns "$host"
    ip -n "$node" addr add "$gateway4/32" dev "to-$name"
    ip -n "$node" link set "to-$name" up
    ip -n "$host" addr add "$ipv4/32" dev eth0
    ip -n "$host" link set eth0 up
    ip -n "$node" route add "$ipv4/32" dev "to-$name"
    ip -n "$host" route add "$gateway4/32" dev eth0
    ip -n "$host" route add default via "$gateway4"
    $ipv6_on || return 0
    ip -n "$node" addr add "$gateway6/128" dev "to-$name"
    ip -n "$host" addr add "$ipv6/128" dev eth0
    ip -n "$node" route add "$ipv6/128" dev "to-$name"
    ip -n "$host" route add "$gateway6/128" dev eth0
    ip -n "$host" route add default via "$gateway6"
}
add_pod() { add_host "$1" "10.244.1.$2" "fd00:10:244:1::$2" 10.244.1.1 fd00:10:244:1::1; }

# start_server NAME: starts nginx in that namespace. It answers with its name and the client's address.
start_server() {
    local dir=$tmp/$1
    mkdir "$dir"
    cat >"$dir/nginx.conf" <<END
daemon off;
user nobody nogroup;
worker_processes 1;
pid $dir/nginx.pid;
error_log $dir/error.log;
events { worker_connections 512; }
http {
    access_log off;
    client_body_temp_path $dir/body;
    proxy_temp_path $dir/proxy;
    fastcgi_temp_path $dir/fastcgi;
    uwsgi_temp_path $dir/uwsgi;
    scgi_temp_path $dir/scgi;
    default_type text/plain;
    server {
        listen 8080;
        listen 9090;
        $($ipv6_on && printf 'listen [::]:8080;')
        return 200 "$1 saw \$remote_addr\n";
    }
}
END
    start "$1" nginx -p "$dir" -c "$dir/nginx.conf"
    printf '%s' "$started" >"$dir/pid"
    wait_until "nginx of $1 to listen" in_ns "$1" curl -sf -o "$dir/first" http://127.0.0.1:8080/
}

# stop_server NAME: stops like a Pod: nginx answers the current requests and then stops listening.
stop_server() { kill -QUIT "$(cat "$tmp/$1/pid")"; }

# wait_until DESCRIPTION COMMAND...: retries until the deadline, or until kube-dnat exits.
wait_until() {
    local description=$1 deadline=$((SECONDS + patience))
    shift
    until "$@" >/dev/null 2>&1; do
        [ -z "$daemon" ] || kill -0 "$daemon" 2>/dev/null || die "kube-dnat has exited"
        [ "$SECONDS" -lt "$deadline" ] || die "waited $patience seconds for $description"
        sleep 0.01
    done
}

patience=$((10 * ${KUBE_DNAT_TEST_PATIENCE:-1}))
milliseconds() { echo $(($(date +%s%N) / 1000000)); }

# get FROM URL [CURL OPTION...]: sends one request. The exit status is curl's.
get() { in_ns "$1" curl -sS --globoff --connect-timeout 2 --max-time 5 "${@:3}" "$2"; }
# answers FROM URL COUNT: opens that many connections, and writes one answer per line to $tmp/answers
# ("web-1 saw 10.244.1.99").
answers() {
    in_ns "$1" curl -sS --max-time 20 -H 'Connection: close' "$2?[1-$3]" >"$tmp/answers" 2>&1 || true
}
# count SERVER: prints the number of answers from the server.
count() { grep -c "^$1 saw " "$tmp/answers" || true; }
show_counts() { sed 's/ saw .*//' "$tmp/answers" | sort | uniq -c | indent; }
# between LOW VALUE HIGH
between() { [ "$1" -le "$2" ] && [ "$2" -le "$3" ]; }
equal() { [ "$1" = "$2" ]; }
contains() { [[ $1 == *"$2"* ]]; }
matches() { [[ $1 =~ $2 ]]; }

# list MAP: lists an nft map of the node, as an operator does.
list() { in_ns node nft list map ip kube-dnat "$1"; }
# has_endpoint POD_ADDRESS: succeeds if 10.96.0.80:80 has this endpoint in the kernel.
has_endpoint() {
    local elements
    elements=$(list endpoints 2>/dev/null) || return 1
    grep -q "tcp \. 10\.96\.0\.80 \. 80 \. .* : ${1//./\\.} \. 8080" <<<"$elements"
}
lacks_endpoint() { ! has_endpoint "$1"; }

# --- the demo --------------------------------------------------------------------------------------

if [ "$(id -u)" -ne 0 ]; then
    echo "scripts/demo.sh creates network namespaces. Run it as root (sudo scripts/demo.sh)." >&2
    exit 1
fi

headline "Install missing packages and build the release binary"
packages=("${nft_packages[@]}" ip:iproute2 curl:curl nginx:nginx-light dnsmasq:dnsmasq-base
    conntrack:conntrack)
if [ -n "${KUBE_DNAT:-}" ]; then
    need_packages "${packages[@]}"
else
    need_packages "${build_packages[@]}" "${packages[@]}"
    need_cargo
    run_cargo build --release --locked
    KUBE_DNAT=$(target_directory)/release/kube-dnat
fi
[ -x "$KUBE_DNAT" ] || die "$KUBE_DNAT is not an executable"
pass "$KUBE_DNAT"

begin=$(milliseconds)
tmp=$(mktemp -d "${TMPDIR:-/tmp}/kube-dnat-demo.XXXXXX")
chmod 755 "$tmp"
mkdir "$tmp/manifests"
cp "$root"/manifests/examples/*.yaml "$tmp/manifests/"
# The third Pod of shop/web is added later.
sed -i '/10\.244\.1\.13/s/^/#/' "$tmp/manifests/web.yaml"

headline "A node, its Pods and an external client, each in a network namespace"
cat <<'END'
   outside 192.168.77.100 ── node 192.168.77.2 ─┬─ web-1  10.244.1.11  nginx
                                                ├─ web-2  10.244.1.12  nginx
                                                ├─ web-3  10.244.1.13  nginx, later
                                                ├─ dns    10.244.1.53  dnsmasq
                                                └─ client 10.244.1.99
END
add_namespace node
set_sysctl node ipv4/ip_forward 1
if $ipv6_on; then set_sysctl node ipv6/conf/all/forwarding 1; fi
add_host outside 192.168.77.100 fd00:192:168:77::100 192.168.77.2 fd00:192:168:77::2
# As on any node, other addresses have a default route. Without a route, the node's own connections to a
# ClusterIP never reach the output hook.
ip -n "$prefix-node" route add default via 192.168.77.100
if $ipv6_on; then ip -n "$prefix-node" route add default via fd00:192:168:77::100; fi
add_pod web-1 11
add_pod web-2 12
add_pod dns 53
add_pod client 99
start_server outside
start_server web-1
start_server web-2
start dns dnsmasq --keep-in-foreground --conf-file=/dev/null --pid-file= --no-resolv --no-hosts \
    --listen-address=10.244.1.53 --bind-interfaces --local=/cluster.local/ \
    --host-record=web.shop.svc.cluster.local,10.96.0.80 \
    --log-queries --log-facility="$tmp/dns.log"
pass "three nginx and a dnsmasq are running"

headline "Start kube-dnat with a directory of manifests"
say "$ kube-dnat run --manifests DIR --hostname-override demo-node \\"
say "      --cluster-cidr 10.244.0.0/16,fd00:10:244::/56"
say "$ ls DIR: $(cd "$tmp/manifests" && echo *)"
started_at=$(milliseconds)
start node "$KUBE_DNAT" run --manifests "$tmp/manifests" --hostname-override demo-node \
    --cluster-cidr 10.244.0.0/16,fd00:10:244::/56 2>"$tmp/kube-dnat.log"
daemon=$started
wait_until "kube-dnat to program shop/web" has_endpoint 10.244.1.12
pass "programmed $(($(milliseconds) - started_at)) ms after its start"

headline "A ClusterIP, from a Pod: 10.96.0.80:80 goes to port 8080 of one of two Pods"
say "$ curl http://10.96.0.80/                          (300 connections)"
answers client http://10.96.0.80/ 300
show_counts
check "300 answers, all from these Pods" equal "$(($(count web-1) + $(count web-2)))" 300
# 150 expected, standard deviation 8.7: a correct program fails this once in ten million runs.
check "each Pod gets about half of the connections" between 104 "$(count web-1)" 196
check "the Pods saw the client's own address" equal "$(grep -c ' saw 10.244.1.99$' "$tmp/answers")" 300

headline "A node port, from outside: 192.168.77.2:30123"
say "$ curl http://192.168.77.2:30123/                  (100 connections)"
answers outside http://192.168.77.2:30123/ 100
show_counts
check "100 answers" equal "$(($(count web-1) + $(count web-2)))" 100
# 50 expected, standard deviation 5.
check "each Pod gets about half of the connections" between 23 "$(count web-1)" 77
check "masqueraded: the Pods saw an address of the node" \
    equal "$(grep -c ' saw 10.244.1.1$' "$tmp/answers")" 100

headline "A name, from a Pod: resolved by the DNS Service 10.96.0.10, then fetched"
cat >"$tmp/resolv.conf" <<END
nameserver 10.96.0.10
search shop.svc.cluster.local svc.cluster.local cluster.local
options ndots:5 timeout:2 attempts:2
END
sed 's/^options .*/& use-vc/' "$tmp/resolv.conf" >"$tmp/resolv-tcp.conf"
echo 'hosts: dns' >"$tmp/nsswitch.conf"
# get_by_name RESOLV_CONF: fetches the name. `ip netns exec` gives the command its own mount namespace.
get_by_name() {
    # shellcheck disable=SC2016
    in_ns client sh -c '
        mount --bind "$1" "$(readlink -f /etc/resolv.conf)" &&
        mount --bind "$2" /etc/nsswitch.conf &&
        exec curl -sS --max-time 10 http://web.shop/
    ' sh "$1" "$tmp/nsswitch.conf" 2>&1
}
say "$ cat /etc/resolv.conf"
indent <"$tmp/resolv.conf"
say "$ curl http://web.shop/"
answer=$(get_by_name "$tmp/resolv.conf" || true)
say "$answer"
check "resolved over UDP and fetched" contains "$answer" " saw 10.244.1.99"
say "$ conntrack -L -p udp --orig-dst 10.96.0.10        (on the node)"
entry=$(in_ns node conntrack -L -p udp --orig-dst 10.96.0.10 2>/dev/null | head -n 1 | tr -s ' ') || true
say "$entry"
check "sent to 10.96.0.10:53, answered by the DNS Pod 10.244.1.53:53" \
    matches "$entry" ' dst=10\.96\.0\.10 .*dport=53 .*src=10\.244\.1\.53 .*sport=53 '
answer=$(get_by_name "$tmp/resolv-tcp.conf" || true)
check "the same over TCP (options use-vc)" contains "$answer" " saw 10.244.1.99"

headline "The other examples, one connection each"
# reach DESCRIPTION EXPECTED FROM URL: checks that the answer contains EXPECTED.
reach() {
    local answer
    answer=$(get "$3" "$4" 2>&1 || true)
    check "$1: $4 from $3: $answer" contains "$answer" "$2"
}
reach "from the node itself" " saw 10.244.1.1" node http://10.96.0.80/
reach "named port" " saw 10.244.1.99" client http://10.96.0.81:9100/
reach "load-balancer IP" " saw 10.244.1.1" outside http://203.0.113.10/
reach "external server, from Endpoints" "outside saw 10.244.1.99" client http://10.96.0.84/
reach "dual-stack, IPv4" " saw 10.244.1.99" client http://10.96.0.85/
if $ipv6_on; then
    reach "dual-stack, IPv6" " saw fd00:10:244:1::99" client "http://[fd00:10:96::85]/"
else
    say "– this kernel has no IPv6: not shown"
fi
answers web-1 http://10.96.0.80/ 40
check "a Pod reaches its own Service, and itself through it: $(count web-1) of 40 connections" \
    equal "$(($(count web-1) + $(count web-2)))/$(($(count web-1) > 0))" 40/1
# refused FROM URL: succeeds if the connection is refused at once, as by a host without a listener.
refused() { contains "$(get "$1" "$2" -v --connect-timeout 0.9 2>&1 || true)" "Connection refused"; }
check "a port that the Service does not have is rejected at once: http://10.96.0.80:81/" \
    refused client http://10.96.0.80:81/

headline "Add a Pod and remove a Pod by editing a file, while requests continue"
# Each request is a separate curl, with its own connection and source port. A lost SYN would be
# retransmitted after a second, so it counts as a failure.
cat >"$tmp/load.sh" <<'END'
while [ ! -e "$1/stop" ]; do
    curl -sS --connect-timeout 0.9 --max-time 5 http://10.96.0.80/ 2>&1 || echo "FAILED: curl exited with $?"
done >>"$1/load"
END
start client bash "$tmp/load.sh" "$tmp"
load=$started
# requests [FROM LINE [PATTERN]]: prints the number of answers from that line on.
requests() { tail -n "+${1:-1}" "$tmp/load" | grep -c "${2:-^}" || true; }
at_least() { [ "$(requests "$1" "${3:-^}")" -ge "$2" ]; }
# edit PROGRAM: edits web.yaml as an operator does, and records the time.
edit() {
    say "$ sed -i '$1' DIR/web.yaml"
    edited_at=$(milliseconds)
    sed -i "$1" "$tmp/manifests/web.yaml"
}
wait_until "the first requests" at_least 1 100

add_pod web-3 13
start_server web-3
# The line of web-3 is still a comment in the file.
edit '/10.244.1.13/s/^#//'
wait_until "web-3 in the map" has_endpoint 10.244.1.13
pass "web-3 is in the kernel $(($(milliseconds) - edited_at)) ms later"
from=$(($(requests) + 1))
wait_until "300 more requests" at_least "$from" 300
check "web-3 answers: $(requests "$from" '^web-3') of the next $(requests "$from") requests" \
    at_least "$from" 1 '^web-3'

edit '/10.244.1.11/d'
wait_until "web-1 to leave the map" lacks_endpoint 10.244.1.11
pass "web-1 has left the kernel $(($(milliseconds) - edited_at)) ms later"
# web-1 may still answer the request that was in flight at that moment.
from=$(($(requests) + 2))
wait_until "30 more requests" at_least "$from" 30
stop_server web-1
wait_until "300 more requests" at_least "$from" 330
touch "$tmp/stop"
wait "$load"
check "web-1 gets none of the next $(requests "$from") requests, and stops" \
    equal "$(requests "$from" '^web-1')" 0
check "of $(requests) requests $(requests 1 '^FAILED') failed" \
    equal "$(requests)/$(requests 1 ' saw 10.244.1.99$')" "$(requests)/$(requests)"

headline "What the kernel holds: the two maps that decide where a connection goes"
say "$ nft list map ip kube-dnat services               (frontend: how to pick)"
list services | indent
say "$ nft list map ip kube-dnat endpoints              (frontend and slot: endpoint)"
list endpoints | indent
check "every element has the name of its Service" equal \
    "$(list services | grep -c goto)" "$(list services | grep -c 'comment ".*/.*goto')"

headline "Explain: what the rules in the kernel do with one connection"
say "$ kube-dnat explain 10.96.0.80:80 --from 10.244.1.99"
why=$(in_ns node "$KUBE_DNAT" explain 10.96.0.80:80 --from 10.244.1.99)
indent <<<"$why"
check "it names both Pods, and shows that they see the client's own address" equal \
    "$(grep -c '50.0 %  10.244.1.1[23]:8080  source preserved' <<<"$why")" 2
say "$ kube-dnat status"
in_ns node "$KUBE_DNAT" status | indent

headline "Stop: the rules stay until cleanup"
kill -TERM "$daemon"
wait "$daemon" && status=0 || status=$?
check "kube-dnat exited with status 0 on SIGTERM" equal "$status" 0
reach "the ClusterIP without the daemon" " saw 10.244.1.99" client http://10.96.0.80/
say "$ kube-dnat cleanup"
in_ns node "$KUBE_DNAT" cleanup 2>&1 | indent
check "no table is left: nft list tables prints \"$(in_ns node nft list tables)\"" \
    equal "$(in_ns node nft list tables)" ""

took=$(($(milliseconds) - begin))
headline "$(printf 'Done in %d.%d s' $((took / 1000)) $((took % 1000 / 100)))"
if [ "$failures" -ne 0 ]; then
    die "$failures of the checks above failed"
fi
pass "all checks passed"
