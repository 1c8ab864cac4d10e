#!/bin/bash
# Subject: dnsmasq 2.90 (Debian 12), the MAC of a `dhcp-host`.
# A good guess: a MAC with hyphens or dots is a MAC, or the test of the configuration refuses it; a fixed address that is in no network of the
#   server is refused, too.
# Seen: `--test` says OK. With hyphens, in the form of switches and without separators it is the name of a host, so the guest gets
#   any address of the range; only colons make a MAC (52:54:0:0:0:5 does). Of an address elsewhere, too, the guest gets another one.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian dnsmasq-base=2.90-4~deb12u2 libnetfilter-conntrack3=1.0.9-3
cat >"$work/dnsmasq.conf" <<'END'
port=0
interface=node
bind-interfaces
no-ping
dhcp-range=203.0.113.10,203.0.113.20,255.255.255.0,1h
dhcp-host=52:54:00:00:00:01,203.0.113.101
dhcp-host=52-54-00-00-00-02,203.0.113.102
dhcp-host=5254.0000.0003,203.0.113.103
dhcp-host=525400000004,203.0.113.104
dhcp-host=52:54:0:0:0:5,203.0.113.105
dhcp-host=52:54:00:00:00:06,198.51.100.6
END
cat >"$work/discover.py" <<'END'
import ipaddress, socket, struct
for number in range(1, 7):
    mac = bytes.fromhex(f"52540000000{number}")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"guest")
        client.bind(("", 68))
        client.settimeout(10)
        # To be answered by broadcast.
        message = struct.pack("!4BIHH16x16s192xI", 1, 1, 6, 0, number, 0, 0x8000, mac, 0x63825363) + bytes([53, 1, 1, 255])
        client.sendto(message, ("255.255.255.255", 67))
        while (answer := client.recv(2000))[4:8] != number.to_bytes(4, "big"):
            pass
        offered = ipaddress.ip_address(answer[16:20])
        from_range = 10 <= offered.packed[3] <= 20
        print(mac.hex(":"), "is offered", "an address of the range" if from_range else offered)
END
network() {
    ip link set lo up
    unshare -n sleep 60 &
    guest=$!
    until [[ $(readlink /proc/$guest/ns/net) != "$(readlink /proc/self/ns/net)" ]]; do sleep 0.1; done
    ip link add node type veth peer name guest netns $guest
    ip address add 203.0.113.1/24 dev node
    ip link set node up
    nsenter -n -t $guest ip address add 203.0.113.9/24 dev guest
    nsenter -n -t $guest ip link set guest up
    unpacked "$root/usr/sbin/dnsmasq" --test -C "$work/dnsmasq.conf" 2>&1
    unpacked "$root/usr/sbin/dnsmasq" -C "$work/dnsmasq.conf" -u root -g root --keep-in-foreground --log-facility="$work/log" \
        --dhcp-leasefile="$work/leases" --pid-file="$work/pid" &
    until [[ -s $work/pid ]]; do sleep 0.1; done
    nsenter -n -t $guest python3 "$work/discover.py" || cat "$work/log" >&2
    kill "$(cat "$work/pid")" $guest
}
export -f network unpacked
export root work libraries
seen "$(unshare -n bash -c network)" <<'END'
dnsmasq: syntax check OK.
52:54:00:00:00:01 is offered 203.0.113.101
52:54:00:00:00:02 is offered an address of the range
52:54:00:00:00:03 is offered an address of the range
52:54:00:00:00:04 is offered an address of the range
52:54:00:00:00:05 is offered 203.0.113.105
52:54:00:00:00:06 is offered an address of the range
END
