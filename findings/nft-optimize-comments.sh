#!/bin/bash
# Subject: nftables 1.0.6 (Debian 12), `nft --optimize`.
# A good guess: rules are merged only where nothing is lost; a rule's comment, which tools use to find their own rules again, keeps it
#   apart or stays.
# Seen: two rules with different comments become one rule without any, and their two counters one.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian nftables=1.0.6-2+deb12u2 libnftables1=1.0.6-2+deb12u2 libnftnl11=1.2.4-2 libmnl0=1.0.4-3 libjansson4=2.14-2 libxtables12=1.8.9-2 \
    libedit2=3.1-20221030-2
cat >"$work/rules" <<'END'
table ip t {
    chain c {
        type filter hook input priority 0
        ip saddr 203.0.113.5 counter drop comment "ticket 17"
        ip saddr 203.0.113.6 counter drop comment "ticket 18"
    }
}
END
seen "$(unpacked unshare --user --map-root-user --net "$root/usr/sbin/nft" -c -o -f "$work/rules" 2>&1 | sed "s,$work/,,")" <<'END'
Merging:
rules:4:9-41:         ip saddr 203.0.113.5 counter drop comment "ticket 17"
rules:5:9-41:         ip saddr 203.0.113.6 counter drop comment "ticket 18"
into:
	ip saddr { 203.0.113.5, 203.0.113.6 } counter drop
END
