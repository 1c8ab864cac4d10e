#!/bin/bash
# Subject: nftables 1.0.6 (Debian 12), `nft -j list ruleset` loaded again by `nft -j -f -`, beside the same way with text.
# A good guess: the JSON is the rule set, as the text is: libnftables-json(5) promises the same behaviour, and an equivalent for almost all
#   that the text has; what has none is refused, or named.
# Seen: a table that was put to sleep (`dormant`) comes back awake, and drops; `dynamic` and `auto-merge` of sets, and comments of tables, chains
#   and sets, are gone, without a word. A chain of netdev has no device, a map of verdicts stands before the chains that it
#   names, and a set of VLAN numbers has a type that is not read: with one of these nothing at all is loaded.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian nftables=1.0.6-2+deb12u2 libnftables1=1.0.6-2+deb12u2 libnftnl11=1.2.4-2 libmnl0=1.0.4-3 libjansson4=2.14-2 libxtables12=1.8.9-2 \
    libedit2=3.1-20221030-2
# again RULES: of a table of the given family, as text and as JSON and back
again() {
    echo "$1 ${*:2}:"
    printf 'table %s t {\n%s\n}\n' "$1" "$(printf '%s\n' "${@:2}")" >"$work/rules"
    # shellcheck disable=SC2016 # The inner shell expands it.
    unpacked unshare --user --map-root-user --net bash -euc '
        ip link set lo up
        "$1" -f "$2/rules"
        "$1" list ruleset >"$2/listed"
        "$1" -j list ruleset >"$2/json"
        for way in "text -f $2/listed" "json -j -f $2/json"; do
            "$1" flush ruleset
            # shellcheck disable=SC2086
            if "$1" ${way#* } 2>"$2/errors"; then
                "$1" list ruleset | diff "$2/listed" - >"$2/lost" && echo "  ${way%% *}: the same" ||
                    echo "  ${way%% *}: lost $(sed -n "s/^< *//p" "$2/lost" | grep . | xargs -d "\n" -I% echo "(%)" | tr -d "\t" | paste -sd " ")"
            else
                echo "  ${way%% *}: $(sed -n "s/^internal:[^ ]* //p" "$2/errors" | head -1)"
            fi
        done' bash "$root/usr/sbin/nft" "$work"
}
seen "$(again inet 'flags dormant' 'chain c {' 'type filter hook input priority filter; policy drop;' '}'
again inet 'comment "guests"' 'chain c {' 'comment "of guest 100"' '}'
again inet 'set s {' 'type ipv4_addr' 'flags dynamic,timeout' 'size 100' 'timeout 1m' 'comment "seen"' '}'
again inet 'set s {' 'type ipv4_addr' 'flags interval' 'auto-merge' '}'
again inet 'chain guest {' '}' 'map m {' 'type ipv4_addr : verdict' 'elements = { 203.0.113.5 : jump guest }' '}'
again inet 'set s {' 'typeof vlan id' 'elements = { 10 }' '}'
again netdev 'chain c {' 'type filter hook ingress device lo priority filter; policy accept;' '}')" <<'END'
inet flags dormant chain c { type filter hook input priority filter; policy drop; }:
  text: the same
  json: lost (flags dormant)
inet comment "guests" chain c { comment "of guest 100" }:
  text: the same
  json: lost (comment "guests") (comment "of guest 100")
inet set s { type ipv4_addr flags dynamic,timeout size 100 timeout 1m comment "seen" }:
  text: the same
  json: lost (flags dynamic,timeout) (comment "seen")
inet set s { type ipv4_addr flags interval auto-merge }:
  text: the same
  json: lost (auto-merge)
inet chain guest { } map m { type ipv4_addr : verdict elements = { 203.0.113.5 : jump guest } }:
  text: the same
  json: Error: Could not process rule: No such file or directory
inet set s { typeof vlan id elements = { 10 } }:
  text: the same
  json: Error: unqualified type integer specified in set definition. Try "typeof expression" instead of "type datatype".
netdev chain c { type filter hook ingress device lo priority filter; policy accept; }:
  text: the same
  json: Error: Missing `device' in this chain definition
END
