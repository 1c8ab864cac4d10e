#!/bin/bash
# Subject: ifupdown 0.8.41 (Debian 12), /etc/network/interfaces.
# A good guess: `address` without `netmask` and without /LENGTH is a host address, as `ip addr add` and ifupdown2 have it; at
#   any rate IPv4 and IPv6 are treated alike.
# Seen: IPv4 gets the mask of its class of before 1993 (10.0.0.5 is a /8, 172.16.0.5 a /16), so that half of the internet may be
#   taken for on-link; IPv6 stays a /128.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian ifupdown=0.8.41
cat >"$work/interfaces" <<'END'
iface a inet static
    address 10.0.0.5
iface b inet static
    address 172.16.0.5
iface c inet static
    address 203.0.113.5
iface d inet6 static
    address 2001:db8::5
END
mkdir "$work/state"
seen "$("$root/sbin/ifup" --no-act --no-scripts --force --state-dir="$work/state" -v -i "$work/interfaces" a b c d 2>&1 |
    grep -o 'addr add [^ ]*')" <<'END'
addr add 10.0.0.5/255.0.0.0
addr add 172.16.0.5/255.255.0.0
addr add 203.0.113.5/255.255.255.0
addr add 2001:db8::5
END
