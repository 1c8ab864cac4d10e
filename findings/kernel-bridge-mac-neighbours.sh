#!/bin/bash
# Subject: Linux (seen with 6.18, iproute2 6.1.0), permanent neighbours of a bridge that has the lowest MAC of its ports, as Proxmox VE's have.
# A good guess: permanent is permanent: plugging in a guest does not change what the node knows of other guests.
# Seen: a port with a lower MAC gives the bridge another one, and with it all neighbours of the bridge are gone, permanent ones of both
#   families, too; likewise when that port is unplugged. Proxy entries and routes through those neighbours stay. With a MAC of its own
#   the bridge keeps them.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian iproute2=6.1.0-3
bridged() {
    ip() { unpacked "$root/bin/ip" "$@"; }
    plug() {
        ip link add "$1" address "$2" type veth peer name "$1p"
        ip link set "$1" master vmbr0 up
    }
    known() {
        echo "$1: $(ip -o link show vmbr0 | sed 's/.*link.ether \([^ ]*\).*/\1/')"
        ip neighbour show dev vmbr0 nud permanent | sed 's/^/  /; s/ *$//'
        ip neighbour show proxy | sed 's/^/  /; s/ *$//'
        ip route show 192.0.2.5 | sed 's/^/  /; s/ linkdown//; s/ *$//'
    }
    know() {
        ip neighbour replace 203.0.113.8 lladdr 52:54:00:00:01:08 dev vmbr0 nud permanent
        ip neighbour replace 2001:db8::8 lladdr 52:54:00:00:01:08 dev vmbr0 nud permanent
    }
    ip link add vmbr0 type bridge
    ip address add 203.0.113.1/24 dev vmbr0
    ip address add 2001:db8::1/64 dev vmbr0 nodad
    plug eno1 52:54:00:00:00:10
    ip link set vmbr0 up
    know
    ip neighbour add proxy 203.0.113.7 dev vmbr0
    ip route add 192.0.2.5 via 203.0.113.8
    plug tap100i0 52:54:00:00:00:20
    known 'a higher MAC plugged in'
    plug tap101i0 52:54:00:00:00:05
    known 'a lower one'
    know
    ip link set tap101i0 nomaster
    known 'unplugged'
    ip link set vmbr0 address 52:54:00:00:00:10
    know
    ip link set tap101i0 master vmbr0
    known 'plugged in, the MAC being set'
}
export -f bridged unpacked
export root libraries
seen "$(unshare -n bash -c bridged)" <<'END'
a higher MAC plugged in: 52:54:00:00:00:10
  203.0.113.8 lladdr 52:54:00:00:01:08 PERMANENT
  2001:db8::8 lladdr 52:54:00:00:01:08 PERMANENT
  203.0.113.7 dev vmbr0 proxy
  192.0.2.5 via 203.0.113.8 dev vmbr0
a lower one: 52:54:00:00:00:05
  203.0.113.7 dev vmbr0 proxy
  192.0.2.5 via 203.0.113.8 dev vmbr0
unplugged: 52:54:00:00:00:10
  203.0.113.7 dev vmbr0 proxy
  192.0.2.5 via 203.0.113.8 dev vmbr0
plugged in, the MAC being set: 52:54:00:00:00:10
  203.0.113.8 lladdr 52:54:00:00:01:08 PERMANENT
  2001:db8::8 lladdr 52:54:00:00:01:08 PERMANENT
  203.0.113.7 dev vmbr0 proxy
  192.0.2.5 via 203.0.113.8 dev vmbr0
END
