#!/bin/bash
# Subject: netmask 2.4.4 (Debian 12), which prints the fewest prefixes for the ones it is given, of both families.
# A good guess: it merges each family for itself: an IPv4 prefix and an IPv6 one are never one prefix.
# Seen: IPv4 lies at ::ffff:0:0/96, so `::/0` takes all IPv4 prefixes along and one line is left, and the IPv4 half of a prefix
#   and the mapped other half become one mapped prefix: IPv4 is gone. The reverse does not hold: 0.0.0.0/0 takes no IPv6 prefix. ::cb00:7100
#   is printed like an IPv4 address.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian netmask=2.4.4-3
prefixes() { echo "$* -> $("$root/usr/bin/netmask" "$@" | xargs)"; }
seen "$(prefixes 203.0.113.0/25 203.0.113.128/25 2001:db8::/33 2001:db8:8000::/33
prefixes 203.0.113.0/24 2001:db8::/32
prefixes 203.0.113.0/24 ::/0
prefixes 0.0.0.0/0 2001:db8::/32
prefixes 203.0.113.0/25 ::ffff:203.0.113.128/121
prefixes ::cb00:7100/120)" <<'END'
203.0.113.0/25 203.0.113.128/25 2001:db8::/33 2001:db8:8000::/33 -> 203.0.113.0/24 2001:db8::/32
203.0.113.0/24 2001:db8::/32 -> 203.0.113.0/24 2001:db8::/32
203.0.113.0/24 ::/0 -> ::/0
0.0.0.0/0 2001:db8::/32 -> 0.0.0.0/0 2001:db8::/32
203.0.113.0/25 ::ffff:203.0.113.128/121 -> ::ffff:203.0.113.0/120
::cb00:7100/120 -> ::203.0.113.0/120
END
