#!/bin/bash
# Subject: netaddr 1.3.0, a Python library for addresses.
# A good guess: IPNetwork keeps host bits (it does: `.ip` is 203.0.113.5), so 203.0.113.5/24 and 203.0.113.9/24, two interfaces' addresses,
#   differ; and the address 203.0.113.5 equals the network 203.0.113.5/32.
# Seen: the two are equal and one key of a dict, so a set of interfaces' addresses loses all but one of each subnet. An address never
#   equals its own /32.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
python netaddr==1.3.0
seen "$(python3 - <<'END'
from netaddr import IPAddress, IPNetwork
one, other = IPNetwork("203.0.113.5/24"), IPNetwork("203.0.113.9/24")
print(one, other, one.ip == other.ip, one == other)
print(sorted(map(str, {one, other})))
print(IPAddress("203.0.113.5") == IPNetwork("203.0.113.5/32"), IPAddress("203.0.113.5") in IPNetwork("203.0.113.5/32"))
END
)" <<'END'
203.0.113.5/24 203.0.113.9/24 False True
['203.0.113.5/24']
False True
END
