#!/bin/bash
# The init process of a virtual machine of scripts/kernels.sh. It writes one line per fact and per
# result to the second serial port, `RESULT NAME ok|FAILED DETAIL`, and powers the machine off. The
# output of what failed goes to the console.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb NO_COLOR=1
mount -t proc proc /proc
mount -t sysfs sys /sys
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs run /run
# devtmpfs lacks them, and `<(...)` and nft need them.
ln -s /proc/self/fd /dev/fd
ln -s /proc/self/fd/0 /dev/stdin
# A test compiles a library with clang, which is ten times as large as gcc.
ln -s /usr/bin/gcc /usr/local/bin/clang
ip link set lo up
hostname kernels
# Sets tree, target, filters, limit (seconds per group of tests), releases, and the factor of deadlines.
tree='' target='' filters='' limit='' releases=''
# shellcheck source=/dev/null
. /etc/kernels.conf
cd "$tree" || exit 1
stty -F /dev/ttyS1 raw
report() { printf '%s\n' "$*" | tee /dev/ttyS1; }

# The distributions, for their nft: the third disk and the following.
disks=({c..z})
number=0
for release in $releases; do
    mkdir -p "/releases/$release"
    mount -o ro "/dev/vd${disks[number]}" "/releases/$release"
    mount --bind /dev "/releases/$release/dev"
    mount --bind /proc "/releases/$release/proc"
    number=$((number + 1))
done
export releases target

# result NAME LIMIT COMMAND...: runs the command and reports its result.
result() {
    local name=$1 limit=$2 status=0 detail begin=$SECONDS
    shift 2
    timeout --kill-after=5 "$limit" "$@" >/run/output 2>&1 </dev/null || status=$?
    detail=$(sed -n 's/^test result: [A-Za-z]*\. \([0-9]*\) passed; \([0-9]*\) failed.*/\1 passed, \2 failed/p' /run/output | tail -n 1)
    [ "$status" -ne 124 ] || detail="not within $limit s"
    grep '^FACT ' /run/output | while read -r fact; do report "$fact"; done
    # A filter without a test is a mistake.
    case $detail in '0 passed, 0 '*) status=1 ;; esac
    if [ "$status" -eq 0 ]; then
        report "RESULT $name ok${detail:+ $detail,} $((SECONDS - begin)) s"
    else
        report "RESULT $name FAILED ${detail:-exit status $status}, $((SECONDS - begin)) s"
        printf '%s\n' "--- $name"
        tail -n 200 /run/output
    fi
}

report "FACT kernel $(uname -r)"
report "FACT nft $(nft --version | sed 's/^nftables v\([^ ]*\).*/\1/')"
result check 100 unshare --net sh -c "ip link set lo up && ip route add default dev lo &&
    echo 1 >/proc/sys/net/ipv4/ip_forward && echo 1 >/proc/sys/net/ipv6/conf/all/forwarding &&
    $target/release/kube-dnat check"
for filter in $filters; do
    if [ "$filter" = all ]; then set --; else set -- "$filter"; fi
    result "test-${filter%::}" "$limit" "$target/release/net-tests" --test-threads=2 "$@"
done
for check in /usr/local/lib/kernels/check-*.sh; do
    name=${check##*/check-}
    result "${name%.sh}" 300 "$check"
done
result demo 900 env KUBE_DNAT="$target/release/kube-dnat" scripts/demo.sh
if dmesg | grep -E 'WARNING:|BUG:|Oops'; then report 'RESULT kernel-log FAILED'; else report 'RESULT kernel-log ok'; fi
report FINISHED
sync
echo o >/proc/sysrq-trigger
sleep 60
