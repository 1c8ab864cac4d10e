#!/bin/bash
# Subject: pybgpkit-parser 0.18.0 for Python (bgpkit-parser of Rust inside), on a dump of a BGP table; bgpdump 1.6.2 beside it.
# A good guess: an element has what the route has: no MED and no local preference where there is none, a confederation's part of the path
#   in brackets, a path's identifier (RFC 7911); its time is that of the dump, so that `ts_start` at midnight finds midnight's table.
# Seen: MED and local preference are 0, as bgpdump prints them. The members of a confederation stand among the other ASes, so that `65001` is
#   the neighbour. Two paths of one prefix differ in no identifier. The time is when the route came to the peer, and so is that of the
#   filter: `ts_start` with the time in the dump's name finds none of a table that is older routes. In an update it is the message's time.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian bgpdump=1.6.2-2
python pybgpkit-parser==0.18.0
python3 - "$work/table.mrt" <<'END'
import ipaddress, struct, sys


def attribute(flags, kind, value):
    return bytes([flags, kind, len(value)]) + value


def segment(kind, *members):
    return bytes([kind, len(members)]) + b"".join(member.to_bytes(4, "big") for member in members)


def record(kind, body):
    return struct.pack("!IHHI", 1700000000, 13, kind, len(body)) + body


def route(prefix, *entries):
    prefix = ipaddress.ip_network(prefix)
    addpath = len(entries) > 1
    body = struct.pack("!I", 0) + bytes([prefix.prefixlen]) + prefix.network_address.packed[:(prefix.prefixlen + 7) // 8]
    body += struct.pack("!H", len(entries))
    for identifier, (path, more) in enumerate(entries):
        attributes = attribute(0x40, 1, b"\0") + attribute(0x40, 2, path) + attribute(0x40, 3, bytes([192, 0, 2, 9])) + more
        body += struct.pack("!HI", 0, 1690000000) + (struct.pack("!I", 7 + identifier) if addpath else b"")
        body += struct.pack("!H", len(attributes)) + attributes
    return record(8 if addpath else 2, body)


dump = record(1, bytes([192, 0, 2, 3]) + struct.pack("!HH", 0, 1) + b"\x02" + bytes([192, 0, 2, 1] * 2) + struct.pack("!I", 64500))
dump += route("203.0.113.0/24", (segment(2, 64500, 64501), b""))
dump += route("198.51.100.0/25", (segment(2, 64500, 64501), attribute(0x80, 4, bytes(4))))
dump += route("198.51.100.128/25", (segment(3, 65001, 65002) + segment(2, 64500), b""))
dump += route("192.0.2.0/24", *((segment(2, 64500, 64501), b"") for _ in range(2)))
with open(sys.argv[1], "wb") as file:
    file.write(dump)
END
seen "$(echo 'bgpdump (time, prefix, path and identifier before it, MED):'
unpacked "$root/usr/bin/bgpdump" -m "$work/table.mrt" 2>/dev/null | awk -F '|' '{ print $2, $6, $7, $1 ~ /AP/ ? $8 " " $12 : $11 }'
echo 'bgpkit:'
python3 - "$work/table.mrt" <<'END'
import sys
from pybgpkit_parser import Parser

for element in Parser(url=sys.argv[1]):
    print(int(element.timestamp), element.prefix, element.as_path, "MED", element.med)
print("same element for both paths:", len({str(element) for element in Parser(url=sys.argv[1]) if element.prefix == "192.0.2.0/24"}) == 1)
print("from 1700000000 on:", len(list(Parser(url=sys.argv[1], filters={"ts_start": "1700000000"}))), "elements")
END
)" <<'END'
bgpdump (time, prefix, path and identifier before it, MED):
1700000000 203.0.113.0/24 64500 64501 0
1700000000 198.51.100.0/25 64500 64501 0
1700000000 198.51.100.128/25 (65001 65002) 64500 0
1700000000 192.0.2.0/24 7 64500 64501 0
1700000000 192.0.2.0/24 8 64500 64501 0
bgpkit:
1690000000 203.0.113.0/24 64500 64501 MED 0
1690000000 198.51.100.0/25 64500 64501 MED 0
1690000000 198.51.100.128/25 65001 65002 64500 MED 0
1690000000 192.0.2.0/24 64500 64501 MED 0
1690000000 192.0.2.0/24 64500 64501 MED 0
same element for both paths: True
from 1700000000 on: 0 elements
END
