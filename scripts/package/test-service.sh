#!/usr/bin/env bash
# Tests kube-dnat.service where systemd runs. scripts/test-package.sh runs this in a container that has the
# package installed and a network namespace of its own.
set -euo pipefail

fail() {
    printf 'FAILED: %s\n' "$*" >&2
    systemctl status --no-pager --full kube-dnat >&2 || true
    journalctl --no-pager --unit kube-dnat >&2 || true
    exit 1
}

# until_true WHAT COMMAND...: waits for a condition, for at most 60 seconds.
until_true() {
    local what=$1 end=$((SECONDS + 60))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$end" ] || fail "$what"
        sleep 0.1
    done
}

property() { systemctl show --value --property "$1" kube-dnat; }
has_table() { nft list table ip kube-dnat 2>/dev/null | grep "$1" >/dev/null; }
is_restarted() { [ "$(property MainPID)" != "$1" ] && [ "$(property ActiveState)" = active ]; }

printf 'unit file: '
said=$(systemd-analyze verify kube-dnat.service 2>&1) || fail "systemd-analyze verify: $said"
[ -z "$said" ] || fail "systemd-analyze verify: $said"
echo ok

printf 'installation neither enables nor starts the service: '
[ "$(systemctl is-enabled kube-dnat || true)" = disabled ] || fail "it is enabled"
[ "$(property ActiveState)" = inactive ] || fail "it is started"
echo ok

printf 'start returns when the rules are there: '
cp /usr/share/doc/kube-dnat/examples/web.yaml /etc/kube-dnat/manifests
systemctl enable --now --quiet kube-dnat || fail "it does not start"
has_table '"shop/web"' || fail "the rules are missing"
[ "$(property StatusText)" = "running; the first sync is committed" ] || fail "StatusText is $(property StatusText)"
echo ok

printf 'one capability, and kernel settings: '
main=$(property MainPID)
for set in CapPrm CapEff CapBnd CapAmb; do
    grep -q "^$set:.*0000000000001000$" "/proc/$main/status" || fail "$set is not CAP_NET_ADMIN alone"
done
if journalctl --quiet --unit kube-dnat | grep kernel_setting_not_changed; then fail "a kernel setting was not changed"; fi
[ "$(cat /proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established)" = 86400 ] || fail "a kernel setting is missing"
touch_sys='echo > /proc/sys/kernel/domainname'
if nsenter --target "$main" --mount sh -c "$touch_sys" 2>/dev/null; then fail "/proc/sys/kernel is writable"; fi
echo ok

printf 'status: '
kube-dnat status >/dev/null || fail "kube-dnat status exits with $?"
echo ok

printf 'a changed configuration restarts it: '
echo '# changed' >>/etc/kube-dnat/kube-dnat.yaml
until_true "it does not restart" is_restarted "$main"
echo ok

printf 'the watchdog restarts a hung daemon, and the rules stay: '
mkdir -p /run/systemd/system/kube-dnat.service.d
printf '[Service]\nWatchdogSec=1\n' >/run/systemd/system/kube-dnat.service.d/watchdog.conf
systemctl daemon-reload
systemctl restart kube-dnat
main=$(property MainPID)
kill -STOP "$main"
has_table '"shop/web"' || fail "the rules are missing"
until_true "the watchdog does not act" is_restarted "$main"
journalctl --quiet --unit kube-dnat | grep -i watchdog >/dev/null || fail "it was not the watchdog"
echo ok

printf 'a stop leaves the rules: '
systemctl stop kube-dnat
[ "$(property Result)" = success ] || fail "it stopped with $(property Result)"
has_table '"shop/web"' || fail "the rules are missing"
echo ok

printf 'cleanup and purge: '
kube-dnat cleanup 2>/dev/null || fail "cleanup"
if nft list tables | grep kube-dnat; then fail "tables are left"; fi
DEBIAN_FRONTEND=noninteractive apt-get purge --quiet --yes kube-dnat >/dev/null 2>&1 || fail "purge"
[ ! -e /etc/kube-dnat/kube-dnat.yaml ] || fail "the configuration is left"
[ -e /etc/kube-dnat/manifests/web.yaml ] || fail "purge deletes manifests of the administrator"
[ "$(systemctl is-enabled kube-dnat 2>/dev/null || true)" != enabled ] || fail "it is still enabled"
echo ok
