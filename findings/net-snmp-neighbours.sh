#!/bin/bash
# Subject: snmpd and snmpwalk of Net-SNMP 5.9.3 (Debian 12): addresses and neighbours by IP-MIB (RFC 4293), without MIB files.
# A good guess: a MAC is printed as hexadecimal numbers, on one line; an address that two NICs have is there twice; a neighbour without
#   a MAC is not in the table.
# Seen: a MAC of printable octets is text, and one that ends in 0a makes two lines of one; QEMU's 52:54 are printable. An address that two
#   NICs have is there once, with the length of one of them. An entry of proxy ARP is a neighbour with the MAC 00:00:00:00:00:00 in the old
#   table, and in the new one it is not.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian snmpd=5.9.3+dfsg-2+deb12u1 snmp=5.9.3+dfsg-2+deb12u1 libsnmp40=5.9.3+dfsg-2+deb12u1 libsensors5=1:3.6.0-7.1
export SNMP_PERSISTENT_DIR=$work
printf 'rocommunity public 127.0.0.1\nagentaddress udp:127.0.0.1:1161\n' >"$work/snmpd.conf"
asked() {
    ip link set lo up
    ip link add node0 type veth peer name node1
    ip link set node0 up
    ip address add 203.0.113.5/24 dev node0
    ip address add 203.0.113.5/32 dev node1
    ip neighbour add 203.0.113.10 lladdr 52:54:00:00:00:01 dev node0
    ip neighbour add 203.0.113.11 lladdr 52:54:41:42:43:44 dev node0
    ip neighbour add 203.0.113.12 lladdr 52:54:41:42:43:0a dev node0
    ip neighbour add proxy 203.0.113.13 dev node0
    unpacked "$root/usr/sbin/snmpd" -C -c "$work/snmpd.conf" -r -I -smux -p "$work/pid" -Lf "$work/log"
    walk() {
        echo "$2"
        unpacked "$root/usr/bin/snmpwalk" -v 2c -c public -m '' -O n 127.0.0.1:1161 "$1"
    }
    until walk .1.3.6.1.2.1.1.3 '' >/dev/null 2>&1; do sleep 0.1; done
    walk .1.3.6.1.2.1.4.35.1.4 ipNetToPhysicalPhysAddress
    walk .1.3.6.1.2.1.4.22.1.2 ipNetToMediaPhysAddress
    walk .1.3.6.1.2.1.4.34.1.5.1 ipAddressPrefix
    kill "$(cat "$work/pid")"
}
export -f asked unpacked
export root work libraries
# The numbers of the NICs.
seen "$(unshare -n bash -c asked | sed -E 's/^(\.1\.3\.6\.1\.2\.1\.4\.(35\.1\.4|22\.1\.2))\.[0-9]+/\1.N/; s/(4\.32\.1\.5)\.[0-9]+/\1.N/; s/ *$//')" <<'END'
ipNetToPhysicalPhysAddress
.1.3.6.1.2.1.4.35.1.4.N.1.4.203.0.113.10 = Hex-STRING: 52 54 00 00 00 01
.1.3.6.1.2.1.4.35.1.4.N.1.4.203.0.113.11 = STRING: "RTABCD"
.1.3.6.1.2.1.4.35.1.4.N.1.4.203.0.113.12 = STRING: "RTABC
"
ipNetToMediaPhysAddress
.1.3.6.1.2.1.4.22.1.2.N.203.0.113.10 = Hex-STRING: 52 54 00 00 00 01
.1.3.6.1.2.1.4.22.1.2.N.203.0.113.11 = STRING: "RTABCD"
.1.3.6.1.2.1.4.22.1.2.N.203.0.113.12 = STRING: "RTABC
"
.1.3.6.1.2.1.4.22.1.2.N.203.0.113.13 = Hex-STRING: 00 00 00 00 00 00
ipAddressPrefix
.1.3.6.1.2.1.4.34.1.5.1.4.127.0.0.1 = OID: .1.3.6.1.2.1.4.32.1.5.N.1.4.127.0.0.0.8
.1.3.6.1.2.1.4.34.1.5.1.4.203.0.113.5 = OID: .1.3.6.1.2.1.4.32.1.5.N.1.4.203.0.113.5.32
END
