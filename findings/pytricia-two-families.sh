#!/bin/bash
# Subject: pytricia 1.3.0, a Python library for longest-prefix match.
# A good guess: a trie made for 128 bits keeps IPv4 and IPv6 prefixes apart, as py-radix does: it lists each as what it is.
# Seen: an IPv4 prefix is the first 32 of the 128 bits, so it answers for IPv6 addresses with the same bits: 203.0.113.0/24 for all of
#   cb00:7100::/24. A trie for 32 bits (the default) takes IPv6 prefixes as well, and finds addresses in them.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
python pytricia==1.3.0
seen "$(python3 - <<'END'
import pytricia
trie = pytricia.PyTricia(128)
trie["203.0.113.0/24"] = "four"
trie["2001:db8::/32"] = "six"
print(list(trie))
for address in "203.0.113.5", "2001:db8::5", "cb00:7105::":
    print(address, trie.get(address))
trie = pytricia.PyTricia()
trie["2001:db8::/64"] = "six"
print(list(trie), trie.get("2001:db8::5"))
END
)" <<'END'
['2001:db8::/32', '203.0.113.0/24']
203.0.113.5 four
2001:db8::5 six
cb00:7105:: four
['2001:db8::/64'] six
END
