#!/bin/bash
# Subject: ipset 7.17, iptables 1.8.9 and iproute2 6.1.0 (Debian 12), an IPv4 prefix in short form such as 10.1/16.
# A good guess: tools of one kernel read it the same way, most of all a rule and the set that the rule names.
# Seen: iptables and ip fill up with zeros at the end (10.1.0.0/16); ipset asks the C library, for which the last number
#   fills the rest: 10.1 is 10.0.0.1, and 10.1/16 the prefix 10.0.0.0/16. All of them end with 0.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian ipset=7.17-1 libipset13=7.17-1 iptables=1.8.9-2 libxtables12=1.8.9-2 libnftnl11=1.2.4-2 libmnl0=1.0.4-3 \
    iproute2=6.1.0-3 libbpf1=1:1.1.2-0+deb12u1
export XTABLES_LIBDIR=$libraries/xtables
# shellcheck disable=SC2016 # The inner shell expands it.
seen "$(unpacked unshare --user --map-root-user --net bash -euc '
    "$1/usr/sbin/ipset" create addresses hash:net
    for prefix in 10.1/16 203.0.113/24; do
        "$1/usr/sbin/ipset" add addresses "$prefix"
        "$1/usr/sbin/xtables-nft-multi" iptables -A INPUT -s "$prefix"
        "$1/bin/ip" route add blackhole "$prefix"
    done
    "$1/usr/sbin/ipset" save | sed -n "s/^add/ipset:/p" | sort
    "$1/usr/sbin/xtables-nft-multi" iptables -S INPUT | sed -n "s/^-A/iptables:/p"
    "$1/bin/ip" route show | sed "s/^/ip: /"' bash "$root")" <<'END'
ipset: addresses 10.0.0.0/16
ipset: addresses 203.0.0.0/24
iptables: INPUT -s 10.1.0.0/16
iptables: INPUT -s 203.0.113.0/24
ip: blackhole 10.1.0.0/16 
ip: blackhole 203.0.113.0/24 
END
