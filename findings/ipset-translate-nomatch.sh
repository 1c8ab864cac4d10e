#!/bin/bash
# Subject: ipset-translate of ipset 7.17 (Debian 12), which writes a saved set for nftables.
# A good guess: what has no translation becomes a comment and an exit status, as it does for `swap`.
# Seen: an exception (`nomatch`) becomes a member, and a list of sets a set of the type `unknown`, both with exit status
#   0.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian ipset=7.17-1 libipset13=7.17-1 libmnl0=1.0.4-3
translate() {
    local status=0
    printf '%s\n' "$@" | unpacked unshare --user --map-root-user --net "$root/usr/sbin/ipset-translate" restore ||
        status=$?
    echo "exit status $status"
}
seen "$(translate 'create networks hash:net' 'add networks 203.0.113.0/24' 'add networks 203.0.113.128/25 nomatch'
translate 'create lists list:set'
translate 'create one hash:net' 'create other hash:net' 'swap one other')" <<'END'
add table inet global
add set inet global networks { type ipv4_addr; flags interval; }
add element inet global networks { 203.0.113.0/24 }
add element inet global networks { 203.0.113.128/25 }
exit status 0
add table inet global
add set inet global lists { type unknown; }
exit status 0
add table inet global
add set inet global one { type ipv4_addr; flags interval; }
add set inet global other { type ipv4_addr; flags interval; }
# swap one other
exit status 255
END
