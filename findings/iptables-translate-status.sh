#!/bin/bash
# Subject: iptables-translate and ebtables-translate of iptables 1.8.9 (Debian 12).
# A good guess: what cannot be translated ends with an error in both, so that a script notices that a rule is missing.
# Seen: iptables-translate writes the rule behind a `#` and ends with 0; ebtables-translate does the same and ends with 1. The matches of
#   bridges and abuse are among them: physdev, recent, hashlimit; ARP addresses in ebtables.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian iptables=1.8.9-2 libxtables12=1.8.9-2 libnftnl11=1.2.4-2 libmnl0=1.0.4-3
export XTABLES_LIBDIR=$libraries/xtables
translate() {
    local status=0 said
    said=$(unpacked unshare --user --map-root-user --net "$root/usr/sbin/xtables-nft-multi" "$@" 2>/dev/null) || status=$?
    echo "$status: ${said% }"
}
seen "$(translate iptables-translate -A FORWARD -s 203.0.113.5 -j DROP
translate iptables-translate -A FORWARD -m physdev --physdev-in tap100i0 -j DROP
translate iptables-translate -A FORWARD -m recent --set -j DROP
translate ebtables-translate -A FORWARD -p IPv4 --ip-src 203.0.113.5 -j DROP
translate ebtables-translate -A FORWARD -p ARP --arp-ip-src 203.0.113.5 -j DROP)" <<'END'
0: nft 'add rule ip filter FORWARD ip saddr 203.0.113.5 counter drop'
0: nft # -A FORWARD -m physdev --physdev-in tap100i0 -j DROP
0: nft # -A FORWARD -m recent --set -j DROP
0: nft 'add rule bridge filter FORWARD ip saddr 203.0.113.5 counter drop'
1: nft ' # -A FORWARD -p ARP --arp-ip-src 203.0.113.5 -j DROP
END
