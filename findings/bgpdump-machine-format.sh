#!/bin/bash
# Subject: bgpdump 1.6.2 (Debian 12), `bgpdump -m`, the format that other programs read.
# A good guess: `-m` has in one line what the long format has in many, each field in its place.
# Seen: large communities are in the long format only. A route with a path identifier (RFC 7911) has it as a field of
#   its own before the AS path, so that all fields behind it move by one; only the first field, BGP4MP_AP in place of
#   BGP4MP, tells.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian bgpdump=1.6.2-2
python3 - "$work/updates.mrt" <<'END'
import struct, sys
def attribute(flags, code, value):
    return struct.pack("!BBB", flags, code, len(value)) + value
def record(subtype, prefix):
    attributes = (attribute(0x40, 1, b"\0") + attribute(0x40, 2, struct.pack("!BBI", 2, 1, 64500))
        + attribute(0x40, 3, bytes([192, 0, 2, 1])) + attribute(0xC0, 8, struct.pack("!HH", 64500, 7))
        + attribute(0xC0, 32, struct.pack("!III", 64500, 8, 9)))
    update = struct.pack("!HH", 0, len(attributes)) + attributes + prefix
    message = b"\xff" * 16 + struct.pack("!HB", 19 + len(update), 2) + update
    speakers = struct.pack("!IIHH", 64500, 64499, 0, 1) + bytes([192, 0, 2, 1, 192, 0, 2, 2])
    return struct.pack("!IHHI", 1700000000, 16, subtype, len(speakers + message)) + speakers + message
with open(sys.argv[1], "wb") as out:
    out.write(record(4, bytes([24, 203, 0, 113])) + record(9, struct.pack("!I", 5) + bytes([24, 203, 0, 113])))
END
seen "$(unpacked "$root/usr/bin/bgpdump" "$work/updates.mrt" 2>/dev/null | grep COMMUNITY
unpacked "$root/usr/bin/bgpdump" -m "$work/updates.mrt" 2>/dev/null)" <<'END'
COMMUNITY: 64500:7
LARGE_COMMUNITY: 64500:8:9
COMMUNITY: 64500:7
LARGE_COMMUNITY: 64500:8:9
BGP4MP|1700000000|A|192.0.2.1|64500|203.0.113.0/24|64500|IGP|192.0.2.1|0|0|64500:7|NAG||
BGP4MP_AP|1700000000|A|192.0.2.1|64500|203.0.113.0/24|5|64500|IGP|192.0.2.1|0|0|64500:7|NAG||
END
