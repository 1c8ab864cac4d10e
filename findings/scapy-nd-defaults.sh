#!/bin/bash
# Subject: scapy 2.8.0, neighbour discovery that is built with its defaults only.
# A good guess: fields that are not given are zero or neutral, as in its other layers: no flags, preference medium.
# Seen: a neighbour advertisement is by default that of a router and overrides what is known; a router advertisement has the preference
#   `high` and makes its sender a default router for half an hour, with the hop limit 0, `unspecified`. A test that builds `some NA` tests
#   a router's. RARP, on the other hand, which has ARP's format, is not decoded at all.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
python scapy==2.8.0
seen "$(python3 - <<'END' 2>/dev/null
from scapy.layers.inet6 import IPv6, ICMPv6ND_NA, ICMPv6ND_RA
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw
ends = dict(src="fe80::1", dst="ff02::1")
na = IPv6(bytes(IPv6(**ends) / ICMPv6ND_NA(tgt="2001:db8::5")))[ICMPv6ND_NA]
print("NA router", na.R, "solicited", na.S, "override", na.O)
ra = IPv6(bytes(IPv6(**ends) / ICMPv6ND_RA()))[ICMPv6ND_RA]
print("RA preference", ra.sprintf("%ICMPv6ND_RA.prf%"), "lifetime", ra.routerlifetime, "hop limit", ra.chlim)
rarp = bytes(Ether(src="02:00:00:00:00:01", dst="ff:ff:ff:ff:ff:ff", type=0x8035) / ARP(op=3, hwsrc="02:00:00:00:00:01", psrc="0.0.0.0"))
print("RARP", Ether(rarp).payload.name)
END
)" <<'END'
NA router 1 solicited 0 override 1
RA preference High lifetime 1800 hop limit 0
RARP Raw
END
