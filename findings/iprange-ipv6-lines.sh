#!/bin/bash
# Subject: iprange 1.0.4 (Debian 12; FireHOL's), which merges and subtracts lists of addresses for ipset.
# A good guess: it is for IPv4, so of a list with both families it leaves the IPv6 lines out, or fails; a mask that no network has is refused.
# Seen: 2001:db8::/32 is the number 2001, hence the address 0.0.7.209, and 2400:cb00::/32 is 0.0.9.96: the rest of the line is said on
#   stderr to be text, and the exit status is 0. A wildcard mask, as routers write it, makes 0.0.0.0/0 of the line; Debian's `netmask` reads
#   it as the wildcard it is. An end without its first numbers (.5-9) is the address 0.0.0.9, and the range all that lies between.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian iprange=1.0.4+ds-2 netmask=2.4.4-3
merged() {
    local status=0
    printf '%s\n' "$@" | "$root/usr/bin/iprange" 2>"$work/stderr" >"$work/merged" || status=$?
    echo "$* -> $(wc -l <"$work/merged") lines: $(head -3 "$work/merged" | paste -sd ' ') status $status"
}
seen "$(merged 203.0.113.0/25 203.0.113.128/25
merged 203.0.113.0/24 2001:db8::/32 2400:cb00::/32
grep . "$work/stderr"
merged 203.0.113.0/255.255.255.0
merged 203.0.113.0/0.0.0.255
echo "netmask: $("$root/usr/bin/netmask" 203.0.113.0/0.0.0.255 | xargs)"
merged 203.0.113.5-203.0.113.9
merged 203.0.113.5-9)" <<'END'
203.0.113.0/25 203.0.113.128/25 -> 1 lines: 203.0.113.0/24 status 0
203.0.113.0/24 2001:db8::/32 2400:cb00::/32 -> 3 lines: 0.0.7.209 0.0.9.96 203.0.113.0/24 status 0
iprange: Ignoring text after hostname '2001' on line 2: ':db8::/32
'
iprange: Ignoring text after hostname '2400' on line 3: ':cb00::/32
'
203.0.113.0/255.255.255.0 -> 1 lines: 203.0.113.0/24 status 0
203.0.113.0/0.0.0.255 -> 1 lines: 0.0.0.0/0 status 0
netmask: 203.0.113.0/24
203.0.113.5-203.0.113.9 -> 3 lines: 203.0.113.5 203.0.113.6/31 203.0.113.8/31 status 0
203.0.113.5-9 -> 40 lines: 0.0.0.9 0.0.0.10/31 0.0.0.12/30 status 0
END
