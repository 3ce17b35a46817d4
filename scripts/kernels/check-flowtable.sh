#!/bin/bash
# Another program's flowtable offloads connections of Services. TCP and UDP arrive, and a UDP client
# whose endpoint goes away gets another one, at the latest when the Pod is gone.
# shellcheck source-path=SCRIPTDIR source=lab.sh
. "$(dirname "$0")/lab.sh"

add_node
for pod in pod-1:11 pod-2:12 client:99; do add_pod "${pod%:*}" "${pod#*:}"; done
on node nft -f - <<'RULES'
table ip theirs {
    flowtable fast {
        hook ingress priority 0
        devices = { to-pod-1, to-pod-2, to-client }
    }
    chain forward {
        type filter hook forward priority 0
        ct state established flow add @fast
    }
}
RULES
on pod-1 socat TCP-LISTEN:8080,fork,reuseaddr EXEC:cat &
for pod in pod-1 pod-2; do
    on "$pod" socat UDP-RECVFROM:5000,fork,reuseaddr "SYSTEM:echo $pod" &
done
service echo 10.96.0.1 TCP 80 8080 10.244.1.11
service udp 10.96.0.2 UDP 53 5000 10.244.1.11
start_kube_dnat

head -c 1000000 /dev/urandom >"$dir/data"
# The client keeps its side open until everything is back.
transfer() { on client socat -T "$patience" -t "$patience" - TCP:10.96.0.1:80 <"$dir/data" >"$dir/back" && cmp "$dir/data" "$dir/back"; }
wait_until "a megabyte there and back" transfer

(while echo ask; do sleep 0.3; done) | on client socat -T 3600 - UDP:10.96.0.2:53,bind=10.244.1.99:4000 >"$dir/answers" &
wait_until "answers of pod-1" grep -q pod-1 "$dir/answers"
offloaded() { on node conntrack -L -p udp --orig-dst 10.96.0.2 2>/dev/null | grep -q OFFLOAD; }
wait_until "the UDP flow to be offloaded" offloaded
service udp 10.96.0.2 UDP 53 5000 10.244.1.12
# follows SECONDS: waits until the client gets answers of pod-2.
follows() {
    local deadline=$((SECONDS + $1))
    until grep -q pod-2 "$dir/answers"; do
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.1
    done
}
if follows 15; then
    echo "FACT an offloaded UDP flow leaves an endpoint that is removed: at once"
else
    echo "FACT an offloaded UDP flow leaves an endpoint that is removed: not while its Pod exists"
    ip netns delete pod-1
    follows "$patience" || fail "the flow stays at a Pod that is gone"
fi
