#!/bin/bash
# Subject: cidr-trie 3.1.2 for Python, several tries in one program.
# A good guess: what is put into one trie is in that one.
# Seen: the default route is in all of them, those of the other family and those that are made later, and the last one put wins: an
#   entry of 0.0.0.0/0 answers for ::/0 in a trie that never got one. All other prefixes stay where they are.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
python cidr-trie==3.1.2
seen "$(python3 - <<'END'
from cidr_trie import PatriciaTrie
guests, uplinks = PatriciaTrie(), PatriciaTrie()
guests.insert("203.0.113.0/24", "guests")
uplinks.insert("0.0.0.0/0", "uplinks")
print("guests:", guests.find_all("203.0.113.5"), guests.find_all("198.51.100.5"))
print("uplinks:", uplinks.find_all("203.0.113.5"))
print("a new one:", PatriciaTrie().find_all("198.51.100.5"))
six = PatriciaTrie()
six.insert("2001:db8::/32", "guests")
print("IPv6:", six.find_all("2001:db8::5"))
guests.insert("0.0.0.0/0", "guests")
print("uplinks, afterwards:", uplinks.find_all("198.51.100.5"))
END
)" <<'END'
guests: [('0.0.0.0/0', 'uplinks'), ('203.0.113.0/24', 'guests')] [('0.0.0.0/0', 'uplinks')]
uplinks: [('0.0.0.0/0', 'uplinks')]
a new one: [('0.0.0.0/0', 'uplinks')]
IPv6: [('::/0', 'uplinks'), ('2001:db8::/32', 'guests')]
uplinks, afterwards: [('0.0.0.0/0', 'guests')]
END
