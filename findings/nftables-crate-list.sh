#!/bin/bash
# Subject: the crate nftables 0.6.3 for Rust, reading what `nft -j list ruleset` of nftables 1.0.6 (Debian 12) prints.
# A good guess: the answer of nft can be read, or an object that the crate does not know is left out or named.
# Seen: one flag is a word in nft's JSON, several are a list, and the crate takes only the list: one rule with
#   `masquerade random` or `snat ... persistent`, or any verdict map, in anybody's table, and nothing of the rule set
#   can be read. The error names a byte, not the object.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian nftables=1.0.6-2+deb12u2 libnftables1=1.0.6-2+deb12u2 libnftnl11=1.2.4-2 libmnl0=1.0.4-3 libjansson4=2.14-2 \
    libxtables12=1.8.9-2 libedit2=3.1-20221030-2
crates nftables@=0.6.3 serde_json@1 <<'END'
fn main() {
    let read = serde_json::from_reader::<_, nftables::schema::Nftables>(std::io::stdin());
    println!("{}", read.map_or_else(|error| error.to_string(), |rules| format!("{} objects", rules.objects.len())));
}
END
# read_back RULES: of a table, as the crate sees it
# shellcheck disable=SC2016 # The inner shell expands it.
read_back() {
    echo "$*:"
    unpacked unshare --user --map-root-user --net sh -euc '
        echo "table ip t { $2; }" | "$1" -f -
        "$1" -j list ruleset' sh "$root/usr/sbin/nft" "$*" | "$work/reader/target/debug/reader" | sed 's/ at line .*//; s/^/  /'
}
nat='chain c { type nat hook postrouting priority 100;'
seen "$(read_back "$nat masquerade random,persistent; }"
read_back "$nat masquerade random; }"
read_back "$nat snat to 203.0.113.5 persistent; }"
read_back 'map m { type ifname : verdict; }'
read_back 'map m { type ifname : verdict; elements = { "tap100i0" : drop }; }')" <<'END'
chain c { type nat hook postrouting priority 100; masquerade random,persistent; }:
  4 objects
chain c { type nat hook postrouting priority 100; masquerade random; }:
  data did not match any variant of untagged enum NfObject
chain c { type nat hook postrouting priority 100; snat to 203.0.113.5 persistent; }:
  data did not match any variant of untagged enum NfObject
map m { type ifname : verdict; }:
  data did not match any variant of untagged enum NfObject
map m { type ifname : verdict; elements = { "tap100i0" : drop }; }:
  data did not match any variant of untagged enum NfObject
END
