#!/bin/bash
# Subject: iproute2 6.1.0 (Debian 12) and the kernel: one address with a second prefix length on the same interface.
# A good guess: IPv4 and IPv6 do the same, and `ip address replace` leaves the interface with what it was given, or
#   fails.
# Seen: IPv4 holds the address once for each length. IPv6 refuses a second length (`address already assigned`), and
#   `replace` with another length ends with 0 and changes nothing: a /64 that is to become a /128 stays a /64, and with
#   it the route to the /64.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian iproute2=6.1.0-3 libbpf1=1:1.1.2-0+deb12u1 libmnl0=1.0.4-3
# shellcheck disable=SC2016 # The inner shell expands it.
seen "$(unpacked unshare --user --map-root-user --net bash -euc '
    ip=$1/bin/ip
    "$ip" link add br0 type bridge
    "$ip" link set br0 up
    try() { local status=0; "$ip" address "$@" dev br0 2>/dev/null || status=$?; echo "$1 $2: $status"; }
    try add 203.0.113.5/24
    try add 203.0.113.5/32
    try replace 203.0.113.5/28
    try add 2001:db8::5/64
    try add 2001:db8::5/128
    try replace 2001:db8::5/128
    "$ip" -oneline address show dev br0 scope global | grep -o "inet6* [^ ]*"
    "$ip" -6 route show 2001:db8::/64 | cut -d " " -f 1-3' bash "$root")" <<'END'
add 203.0.113.5/24: 0
add 203.0.113.5/32: 0
replace 203.0.113.5/28: 0
add 2001:db8::5/64: 0
add 2001:db8::5/128: 2
replace 2001:db8::5/128: 0
inet 203.0.113.5/24
inet 203.0.113.5/32
inet 203.0.113.5/28
inet6 2001:db8::5/64
2001:db8::/64 dev br0
END
