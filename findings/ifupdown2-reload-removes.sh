#!/bin/bash
# Subject: ifupdown2 3.0.0 (Debian 12; Proxmox VE has a patched one), `ifreload -a` of a file that has not changed.
# A good guess: it does nothing.
# Seen: it takes from a bridge what the file does not have: a guest's tap that was plugged in since, addresses, the MTU and the alias that
#   were set; routes, proxy entries, proxy_arp and group_fwd_mask stay. The check before it calls the tap and the addresses a failure, and the
#   MTU none; the exit status of the reload is 0.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian ifupdown2=3.0.0-1.1
cat >"$work/interfaces" <<'END'
auto vmbr0
iface vmbr0 inet static
    address 203.0.113.1/24
    bridge-ports eno1
    bridge-stp off
    bridge-fd 0
END
# Its programs are one, which looks at its name.
run() {
    PYTHONPATH=$root/usr/share/ifupdown2:$root/usr/share python3 - "$@" <<END
import sys
sys.argv[:1] = []
exec(compile(open("$root/usr/share/ifupdown2/__main__.py").read(), "$1", "exec"))
END
}
state() {
    ip -o address show dev vmbr0 scope global | awk '{ print "address", $4 }'
    ip route show dev vmbr0 proto 121 | awk '{ print "route", $1 }'
    ip neighbour show proxy | awk '{ print "proxy", $1 }'
    ip -o link show master vmbr0 | awk '{ sub("@.*", "", $2); print "port", $2 }'
    ip -d link show vmbr0 | grep -o ' mtu [0-9]*\|alias .*\|group_fwd_mask 0x[0-9a-f]*' | sed 's|^ ||'
    echo "proxy_arp $(cat /proc/sys/net/ipv4/conf/vmbr0/proxy_arp)"
}
node() {
    mount -t sysfs sysfs /sys
    mount -t tmpfs tmpfs /run
    mkdir -p "$work/etc" /run/network
    cp -a /etc/. "$work/etc"
    mkdir -p "$work/etc/network"
    cp -a "$root/etc/network/." "$work/etc/network"
    cp "$work/interfaces" "$work/etc/network"
    mount --bind "$work/etc" /etc
    ip link add eno1 type veth peer name switch
    ip link set switch up
    run ifup -a >/dev/null 2>&1
    ip link add tap100i0 type veth peer name guest
    ip link set tap100i0 master vmbr0 up
    ip address add 198.51.100.1/32 dev vmbr0
    ip address add 2001:db8::1/64 dev vmbr0 nodad
    ip route add 192.0.2.5/32 dev vmbr0 proto 121
    ip neighbour add proxy 203.0.113.7 dev vmbr0
    ip link set vmbr0 mtu 1400 alias guests
    ip link set vmbr0 type bridge group_fwd_mask 0x4000
    echo 1 >/proc/sys/net/ipv4/conf/vmbr0/proxy_arp
    state >"$work/before"
    cat "$work/before"
    status=0
    run ifquery --check vmbr0 2>/dev/null | grep fail | tr -s ' \t' ' ' || true
    run ifreload -a >/dev/null 2>&1 || status=$?
    echo "ifreload ended with $status:"
    state | diff "$work/before" - | grep '^[<>]' || true
}
export -f node state run
export root work
seen "$(unshare -n -m bash -c node)" <<'END'
address 203.0.113.1/24
address 198.51.100.1/32
address 2001:db8::1/64
route 192.0.2.5
proxy 203.0.113.7
port eno1
port tap100i0
mtu 1400
group_fwd_mask 0x4000
alias guests
proxy_arp 1
iface vmbr0 inet static [fail]
 bridge-ports eno1 [fail]
 address 198.51.100.1/32 [fail]
 address 2001:db8::1/64 [fail]
ifreload ended with 0:
< address 198.51.100.1/32
< address 2001:db8::1/64
< port tap100i0
< mtu 1400
> mtu 1500
< alias guests
END
