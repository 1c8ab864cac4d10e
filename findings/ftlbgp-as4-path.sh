#!/bin/bash
# Subject: ftlbgp 1.0.5 for Python, a parser of MRT files, and bgpdump 1.6.2 and mrtparse 2.2.0 beside it.
# A good guess: a path that an old speaker sends in two attributes, AS_PATH with AS 23456 and AS4_PATH with the true
#   numbers, is put together as in RFC 6793; or both are shown as they are.
# Seen: AS4_PATH is read as numbers of two bytes and laid over the path: 64500 65536 65551 becomes 1 0 15, without an
#   error. bgpdump puts it together, mrtparse shows both. A record with numbers of four bytes is right in all three.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian bgpdump=1.6.2-2
python ftlbgp==1.0.5 mrtparse==2.2.0
python3 - "$work/updates.mrt" <<'END'
import struct, sys
def attribute(flags, code, value):
    return struct.pack("!BBB", flags, code, len(value)) + value
def path(size, *numbers):
    return struct.pack(f"!BB{len(numbers)}{'H' if size == 2 else 'I'}", 2, len(numbers), *numbers)
def record(size, attributes):
    routes = attribute(0x40, 1, b"\0") + attributes + attribute(0x40, 3, bytes([192, 0, 2, 1]))
    update = struct.pack("!HH", 0, len(routes)) + routes + bytes([24, 203, 0, 113])
    message = b"\xff" * 16 + struct.pack("!HB", 19 + len(update), 2) + update
    speakers = struct.pack("!HHHH" if size == 2 else "!IIHH", 64500, 64499, 0, 1) + bytes([192, 0, 2, 1, 192, 0, 2, 2])
    return struct.pack("!IHHI", 1700000000, 16, 1 if size == 2 else 4, len(speakers + message)) + speakers + message
with open(sys.argv[1], "wb") as out:
    out.write(record(2, attribute(0x40, 2, path(2, 64500, 23456, 23456)) + attribute(0xC0, 17, path(4, 65536, 65551))))
    out.write(record(4, attribute(0x40, 2, path(4, 64500, 65536, 65551))))
END
paths=$(python3 - "$work/updates.mrt" <<'END'
import sys, ftlbgp, mrtparse
with ftlbgp.BgpParser() as parse:
    for record in parse(sys.argv[1]):
        if hasattr(record, "aspath"):
            print("ftlbgp:", *record.aspath)
for record in mrtparse.Reader(sys.argv[1]):
    attributes = record.data["bgp_message"]["path_attributes"]
    paths = (part for each in attributes if {2, 17} & set(each["type"]) for part in each["value"])
    print("mrtparse:", *(number for path in paths for number in path["value"]))
END
)
seen "$(unpacked "$root/usr/bin/bgpdump" -m "$work/updates.mrt" 2>/dev/null | cut -d '|' -f 7 | sed 's/^/bgpdump: /')
$paths" <<'END'
bgpdump: 64500 65536 65551
bgpdump: 64500 65536 65551
ftlbgp: 1 0 15
ftlbgp: 64500 65536 65551
mrtparse: 64500 23456 23456 65536 65551
mrtparse: 64500 65536 65551
END
