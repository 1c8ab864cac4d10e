#!/bin/bash
# Subject: Linux (seen with 6.18), iproute2 6.1.0 (Debian 12): routes to single addresses, of IPv4 and IPv6.
# A good guess: the same commands have the same effect in both families.
# Seen: a `replace` without a metric makes a second route where the first has one; IPv4 uses the new one (0 is better than any), IPv6 the old
#   one (none is 1024). If the node's address goes, IPv4's routes with it as `src`, and those through gateways of its network, go with
#   it, without a word; IPv6's stay, without their `src`.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian iproute2=6.1.0-3
routes() {
    ip() { unpacked "$root/bin/ip" "$@"; }
    for device in tap100i0 tap101i0; do
        ip link add $device type veth peer name p$device
        ip link set $device up
        ip link set p$device up
    done
    four=203.0.113.5 six=2001:db8::5
    # Of a family: the guest's address, the node's gateway and address.
    of() {
        if [[ $1 == 4 ]]; then guest=$four gateway=192.0.2.9 source=192.0.2.1; else guest=$six gateway=2001:db8:1::9 source=2001:db8:1::1; fi
    }
    show() {
        echo "$1"
        for family in 4 6; do
            of $family
            shown=$(ip -$family route show "$guest" | sed 's/ scope link//; s/ pref medium//; s/ linkdown//; s/ *$//; s/^/  /')
            echo "${shown:-  $guest is gone}"
            echo "  used: $(ip route get "$guest" 2>&1 | grep -o 'dev tap10.i0' || echo none)"
        done
        for family in 4 6; do
            of $family
            while ip -$family route del "$guest" 2>/dev/null; do :; done
        done
    }
    addresses() {
        ip address "$1" 192.0.2.1/24 dev tap100i0
        ip address "$1" 2001:db8:1::1/64 dev tap100i0
    }
    for family in 4 6; do
        of $family
        ip route add $guest dev tap100i0 metric 5
        ip route replace $guest dev tap101i0
    done
    show 'metric 5 by tap100i0, replaced by tap101i0'
    for words in 'dev tap101i0 src S' 'via G'; do
        addresses add
        # Duplicate detection.
        while ip -6 address show tentative | grep -q 2001; do sleep 0.1; done
        for family in 4 6; do
            of $family
            line=${words/S/$source}
            # shellcheck disable=SC2086 # Words.
            ip route add $guest ${line/G/$gateway}
        done
        addresses del
        show "$words, without the address"
    done
}
export -f routes unpacked
export root libraries
seen "$(unshare -n bash -c routes)" <<'END'
metric 5 by tap100i0, replaced by tap101i0
  203.0.113.5 dev tap101i0
  203.0.113.5 dev tap100i0 metric 5
  used: dev tap101i0
  2001:db8::5 dev tap100i0 metric 5
  2001:db8::5 dev tap101i0 metric 1024
  used: dev tap100i0
dev tap101i0 src S, without the address
  203.0.113.5 is gone
  used: none
  2001:db8::5 dev tap101i0 metric 1024
  used: dev tap101i0
via G, without the address
  203.0.113.5 is gone
  used: none
  2001:db8::5 via 2001:db8:1::9 dev tap100i0 metric 1024
  used: dev tap100i0
END
