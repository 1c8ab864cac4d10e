#!/bin/bash
# Subject: `route` and `netstat` of net-tools 2.10 (Debian 12), which read the kernel's /proc/net/route, beside iproute2.
# A good guess: a route that drops packets has the flag `!`, as the manual of route says (`reject route`), whichever of the three
#   kinds it is; all next hops of a route are there.
# Seen: `unreachable` and `prohibit` have it; `blackhole`, the one that null routes are made of, is `U`, up, without a gateway, on the interface
#   `*`: it looks like an address range that is on the link. IPv6 shows all three with `!`. Of two next hops the first is listed. What
#   parses `route -n` or /proc/net/route sees no null route.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian net-tools=2.10-0.1+deb12u2
export root
# shellcheck disable=SC2016 # The inner shell expands it.
seen "$(unshare --user --map-root-user --net bash -euc '
    ip link set lo up
    ip link add name eth0 type veth peer name peer
    ip link set eth0 addrgenmode none
    ip link set peer addrgenmode none up
    ip address add 203.0.113.1/24 dev eth0
    ip link set eth0 up
    ip route add blackhole 192.0.2.0/25
    ip route add unreachable 192.0.2.128/26
    ip route add prohibit 192.0.2.192/26
    ip route add 198.51.100.0/24 nexthop via 203.0.113.2 nexthop via 203.0.113.3
    ip -6 route add blackhole 2001:db8:1::/48
    ip -6 route add unreachable 2001:db8:2::/48
    echo "iproute2:"
    ip route show | sed "s/ *$//"
    echo "route -n:"
    "$root/sbin/route" -n | awk "NR > 2 { print \$1, \$2, \$3, \$4, \$8 }"
    echo "netstat -rn6:"
    "$root/bin/netstat" -rn6 | awk "/^2001/ { print \$1, \$2, \$3, \$NF }"')" <<'END'
iproute2:
blackhole 192.0.2.0/25
unreachable 192.0.2.128/26
prohibit 192.0.2.192/26
198.51.100.0/24
	nexthop via 203.0.113.2 dev eth0 weight 1
	nexthop via 203.0.113.3 dev eth0 weight 1
203.0.113.0/24 dev eth0 proto kernel scope link src 203.0.113.1
route -n:
192.0.2.0 0.0.0.0 255.255.255.128 U *
192.0.2.128 - 255.255.255.192 ! -
192.0.2.192 - 255.255.255.192 ! -
198.51.100.0 203.0.113.2 255.255.255.0 UG eth0
203.0.113.0 0.0.0.0 255.255.255.0 U eth0
netstat -rn6:
2001:db8:1::/48 :: !n lo
2001:db8:2::/48 :: !n lo
END
