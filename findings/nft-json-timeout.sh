#!/bin/bash
# Subject: nftables 1.0.6 (Debian 12), timeouts of set elements in JSON.
# A good guess: `nft -j list` has what `nft list` has, so what is saved as JSON can be loaded again as it was.
# Seen: seconds are cut off, not rounded: 1m30s500ms is 90, and 500ms is 0, which for nft means `never`.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian nftables=1.0.6-2+deb12u2 libnftables1=1.0.6-2+deb12u2 libnftnl11=1.2.4-2 libmnl0=1.0.4-3 libjansson4=2.14-2 libxtables12=1.8.9-2 \
    libedit2=3.1-20221030-2
cat >"$work/rules" <<'END'
table bridge t {
    set s {
        type ether_addr
        flags timeout
        timeout 90500ms
    }
    set r {
        type ether_addr
        flags timeout
        timeout 500ms
    }
}
END
# shellcheck disable=SC2016 # The inner shell expands it.
seen "$(unpacked unshare --user --map-root-user --net sh -euc '"$1" -f "$2"; "$1" list ruleset | grep -o "timeout .*s$"; "$1" -j list ruleset |
    grep -o "\"timeout\": [0-9]*"' sh "$root/usr/sbin/nft" "$work/rules")" <<'END'
timeout 1m30s500ms
timeout 500ms
"timeout": 90
"timeout": 0
END
