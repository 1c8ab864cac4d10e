#!/bin/bash
# Subject: prips 1.2.0, which prints ranges of IPv4 addresses.
# A good guess: `-c`, `print the range in CIDR notation`, gives the blocks that make up the range: .3, .4/30 and .8/31 for .3 to .9.
# Seen: it gives the one block that holds both ends. Seven addresses become sixteen, and .127 to .128 become a /24.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian prips=1.2.0-1
prips=$root/usr/bin/prips
seen "$("$prips" 203.0.113.3 203.0.113.9 | wc -l) addresses: $("$prips" -c 203.0.113.3 203.0.113.9)
$("$prips" 203.0.113.127 203.0.113.128 | wc -l) addresses: $("$prips" -c 203.0.113.127 203.0.113.128)" <<'END'
7 addresses: 203.0.113.0/28
2 addresses: 203.0.113.0/24
END
