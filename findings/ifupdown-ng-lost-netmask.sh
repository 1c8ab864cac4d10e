#!/bin/bash
# Subject: ifquery of ifupdown-ng 0.11.4~rc1 (Debian 12; Alpine has ifupdown-ng by default), a file in the format of ifupdown.
# A good guess: `netmask` is the length of its stanza's address, whatever comes behind the stanza; an address without is of its class, as in
#   ifupdown, or refused.
# Seen: it depends on the next line. In front of `auto eth1` the stanza is left without its mask, and the address, without a length, would
#   be a /32; at the end of the file, or if the interfaces are all named at the beginning, it is right. An address without a mask is a
#   /24. `allow-hotplug` becomes an option of the interface before it, and `pointopoint` the peer of each IPv4 address.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian ifupdown-ng=0.11.4~rc1-1+b2
first='iface eth0 inet static\n address 203.0.113.5\n netmask 255.255.255.128\n'
second='iface eth1 inet static\n address 10.0.0.5\n'
read_as() {
    echo "$1"
    # shellcheck disable=SC2059 # The file.
    printf "$2" >"$work/interfaces"
    for interface in eth0 eth1; do "$root/sbin/ifquery" -i "$work/interfaces" $interface | grep -v '^$\|use '; done
}
seen "$(read_as 'auto behind the stanza' "auto eth0\n$first\nauto eth1\n$second"
read_as 'auto at the beginning' "auto eth0 eth1\n$first\n$second"
read_as 'allow-hotplug' "$first\nallow-hotplug eth1\n$second"
echo pointopoint
MOCK=echo PHASE=up IFACE=eth0 IF_ADDRESSES='203.0.113.5/32 198.51.100.5/24' IF_POINT_TO_POINT=203.0.113.1 sh "$root/usr/libexec/ifupdown-ng/static")" <<'END'
auto behind the stanza
auto eth0
iface eth0
  address 203.0.113.5
  netmask 255.255.255.128
auto eth1
iface eth1
  address 10.0.0.5/24
auto at the beginning
auto eth0
iface eth0
  address 203.0.113.5/25
iface eth1
  address 10.0.0.5/24
allow-hotplug
iface eth0
  address 203.0.113.5/25
  allow-hotplug eth1
iface eth1
  address 10.0.0.5/24
pointopoint
ip -4 addr add 203.0.113.5/32 peer 203.0.113.1 dev eth0
ip -4 addr add 198.51.100.5/24 peer 203.0.113.1 dev eth0
END
