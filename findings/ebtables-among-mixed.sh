#!/bin/bash
# Subject: ebtables of iptables 1.8.9 (Debian 12, the nftables variant), `--among-src` with some MACs bound to an
#   address and some not.
# A good guess: a MAC without an address matches all its frames, whatever stands beside it in the list.
# Seen: alone it matches all of them; beside one entry MAC=ADDRESS only those that are IPv4. ARP and IPv6 of the MAC
#   match no longer, since the whole list has become one of pairs, the missing address 0.0.0.0/0. The listing shows the
#   entry as before.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian iptables=1.8.9-2 libxtables12=1.8.9-2 libnftnl11=1.2.4-2 libmnl0=1.0.4-3
export XTABLES_LIBDIR=$libraries/xtables
# shellcheck disable=SC2016 # The inner shell expands it.
seen "$(unpacked unshare --user --map-root-user --net bash -euc '
    ebtables() { "$root/usr/sbin/xtables-nft-multi" ebtables "$@"; }
    root=$1
    for which in all default; do echo 1 >"/proc/sys/net/ipv6/conf/$which/disable_ipv6"; done
    ip link add br0 type bridge mcast_snooping 0 forward_delay 0
    for port in 1 2; do
        ip link add "port$port" type veth peer name "guest$port"
        ip link set "port$port" master br0 up
        ip link set "guest$port" arp off up
    done
    ip link set br0 up
    for _ in $(seq 100); do [ "$(bridge link show | grep -c "state forwarding")" = 2 ] && break || sleep 0.1; done
    ebtables -A FORWARD --among-src 52:54:00:00:00:02 -j CONTINUE
    ebtables -A FORWARD --among-src 52:54:00:00:00:02,52:54:00:00:00:01=203.0.113.5 -j CONTINUE
    python3 -c "
import socket
sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
sender.bind((\"guest1\", 0))
ipv4 = \"0800 4500001400000000403b02a6cb007107cb007101\"
arp = \"0806 0001080006040001525400000002cb007107000000000000cb007101\"
ipv6 = \"86dd 6000000000003b40\"
for kind in ipv4, arp, ipv6:
    sender.send(bytes.fromhex(\"ffffffffffff 525400000002\" + kind).ljust(60, b\"\\0\"))
"
    for _ in $(seq 50); do ebtables -L FORWARD --Lc | grep -q "pcnt = 3" && break || sleep 0.1; done
    ebtables -L FORWARD --Lc | grep among' bash "$root")" <<'END'
--among-src 52:54:0:0:0:2 -j CONTINUE , pcnt = 3 -- bcnt = 106
--among-src 52:54:0:0:0:1=203.0.113.5,52:54:0:0:0:2 -j CONTINUE , pcnt = 1 -- bcnt = 20
END
