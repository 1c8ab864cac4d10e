#!/bin/bash
# Subject: pyasn 1.6.2 for Python, which makes a table `prefix to origin AS` of a dump of BGP routes; bgpdump 1.6.2 beside it.
# A good guess: the origin is the last AS of the path, and a prefix that two ASes originate has both, or is marked. The default route is there
#   if it is in the dump.
# Seen: of two origins the first peer's counts. An AS for private use or documentation at the end of a path is passed over for the one before,
#   so a customer's prefix is its provider's; and so is any number from 1000000 up to 4199999999, which RFC 6793 and IANA leave free to be
#   assigned. AS_TRANS (23456) is taken for an origin. Of an AS_SET the file gets one of its members, and default routes are gone.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian bgpdump=1.6.2-2
python pyasn==1.6.2
python3 - "$work/table" <<'END'
import bz2, ipaddress, struct, sys


def attribute(flags, kind, value):
    return bytes([flags, kind, len(value)]) + value


def segment(kind, *members):
    return bytes([kind, len(members)]) + b"".join(member.to_bytes(4, "big") for member in members)


def record(kind, body):
    return struct.pack("!IHHI", 1700000000, 13, kind, len(body)) + body


def route(prefix, *paths):
    prefix = ipaddress.ip_network(prefix)
    body = struct.pack("!I", 0) + bytes([prefix.prefixlen]) + prefix.network_address.packed[:(prefix.prefixlen + 7) // 8]
    body += struct.pack("!H", len(paths))
    for peer, path in enumerate(paths):
        attributes = attribute(0x40, 1, b"\0") + attribute(0x40, 2, path) + attribute(0x40, 3, bytes([192, 0, 2, 9]))
        body += struct.pack("!HIH", peer, 1690000000, len(attributes)) + attributes
    return record(2, body)


def sequence(*members):
    return segment(2, *members)


peers = b"".join(b"\x02" + bytes([192, 0, 2, n] * 2) + struct.pack("!I", 500000 + n) for n in (1, 2))
dump = record(1, bytes([192, 0, 2, 3]) + struct.pack("!HH", 0, 2) + peers)
dump += route("0.0.0.0/0", sequence(500001))
dump += route("203.0.113.0/25", sequence(500001, 500010), sequence(500002, 500020))
dump += route("203.0.113.128/25", sequence(500001, 500010, 64512))
dump += route("198.51.100.0/25", sequence(500001, 500010, 1000001))
dump += route("198.51.100.128/25", sequence(500001, 500010, 23456))
dump += route("192.0.2.0/24", sequence(500001) + segment(1, 500030, 500040))
with open(sys.argv[1] + ".mrt", "wb") as file, bz2.open(sys.argv[1] + ".bz2", "wb") as packed:
    file.write(dump)
    packed.write(dump)
END
python3 "$work/python/bin/pyasn_util_convert.py" --single "$work/table.bz2" "$work/origins" >&2
seen "$(echo bgpdump:; unpacked "$root/usr/bin/bgpdump" -m "$work/table.mrt" 2>/dev/null | cut -d '|' -f 6,7
echo pyasn:; grep -v '^;' "$work/origins")" <<'END'
bgpdump:
0.0.0.0/0|500001
203.0.113.0/25|500001 500010
203.0.113.0/25|500002 500020
203.0.113.128/25|500001 500010 64512
198.51.100.0/25|500001 500010 1000001
198.51.100.128/25|500001 500010 23456
192.0.2.0/24|500001 {500030,500040}
pyasn:
203.0.113.0/25	500010
203.0.113.128/25	500010
198.51.100.0/25	500010
198.51.100.128/25	23456
192.0.2.0/24	500040
END
