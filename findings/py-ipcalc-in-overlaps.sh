#!/bin/bash
# Subject: ipcalc 1.99.0 for Python, `in` and `==` of networks and addresses.
# A good guess: `a in b` is true if the whole of a lies in b; IPv4 lies in no IPv6 network; an address and a network differ.
# Seen: `in` is true if they overlap, so that 0.0.0.0/0 lies in 203.0.113.0/24; `==` and `in` compare numbers and no
#   family: 203.0.113.5 is in ::/0 and ::5 is 0.0.0.5, and an address equals one with a length.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
python ipcalc==1.99.0 six==1.17.0
seen "$(python3 - <<'END'
from ipcalc import IP, Network
for inner, outer in (
    ("203.0.113.0/25", "203.0.113.0/24"),
    ("203.0.112.0/23", "203.0.113.0/24"),
    ("0.0.0.0/0", "203.0.113.0/24"),
    ("198.51.100.0/24", "203.0.113.0/24"),
    ("203.0.113.5", "::/0"),
    ("::203.0.113.5", "203.0.113.0/24"),
):
    print(inner, "in", outer, Network(inner) in Network(outer))
for one, other in (("0.0.0.5", "::5"), ("203.0.113.5", "203.0.113.5/24"), ("203.0.113.5", "203.0.113.6")):
    print(one, "==", other, IP(one) == IP(other))
END
)" <<'END'
203.0.113.0/25 in 203.0.113.0/24 True
203.0.112.0/23 in 203.0.113.0/24 True
0.0.0.0/0 in 203.0.113.0/24 True
198.51.100.0/24 in 203.0.113.0/24 False
203.0.113.5 in ::/0 True
::203.0.113.5 in 203.0.113.0/24 True
0.0.0.5 == ::5 True
203.0.113.5 == 203.0.113.5/24 True
203.0.113.5 == 203.0.113.6 False
END
