#!/bin/bash
# Subject: os-ken 4.2.2 for Python, its module mrtlib, on a file of three updates, the second of the type BGP4MP_ET; bgpdump 1.6.2 beside it.
# A good guess: the microseconds of an `extended timestamp` are part of the record's length, as RFC 6396 section 3 says, and the third record
#   begins where the length says.
# Seen: os-ken counts them on top, so it takes the first four bytes of the next record for part of this one. The second looks right; what
#   follows, to the end of the file, is one record of unknown type. No error.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian bgpdump=1.6.2-2
python os-ken==4.2.2 netaddr==1.3.0 oslo.config==10.7.0 oslo.i18n==6.9.0 rfc3986==2.0.0 stevedore==5.10.0 pbr==7.1.3 packaging==26.4 \
    PyYAML==6.0.4 setuptools==84.2.1
python3 - "$work/updates.mrt" <<'END'
import ipaddress, struct, sys


def update(prefix):
    prefix = ipaddress.ip_network(prefix)
    path = struct.pack("!BBI", 2, 1, 64500)
    attributes = bytes.fromhex("40010100" "4002") + bytes([len(path)]) + path + bytes.fromhex("400304c0000209")
    body = struct.pack("!HH", 0, len(attributes)) + attributes + bytes([prefix.prefixlen]) + prefix.network_address.packed[:3]
    message = b"\xff" * 16 + struct.pack("!HB", 19 + len(body), 2) + body
    return struct.pack("!IIHH", 64500, 64501, 0, 1) + bytes([192, 0, 2, 9, 192, 0, 2, 1]) + message


with open(sys.argv[1], "wb") as file:
    for prefix, microseconds in (("203.0.113.0/24", None), ("198.51.100.0/24", 123456), ("192.0.2.0/24", None)):
        body = update(prefix)
        if microseconds is None:
            file.write(struct.pack("!IHHI", 1700000000, 16, 4, len(body)) + body)
        else:
            file.write(struct.pack("!IHHII", 1700000000, 17, 4, len(body) + 4, microseconds) + body)
END
seen "$(echo bgpdump:; unpacked "$root/usr/bin/bgpdump" -m "$work/updates.mrt" 2>/dev/null | cut -d '|' -f 1-3,6
echo os-ken:; python3 - "$work/updates.mrt" <<'END'
import sys
from os_ken.lib import mrtlib

for record in mrtlib.Reader(open(sys.argv[1], "rb")):
    if isinstance(record, mrtlib.UnknownMrtRecord):
        print(type(record).__name__, "type", record.type, "with", len(record.message.buf), "bytes")
    else:
        print(type(record).__name__, record.message.bgp_message.nlri[0].prefix)
END
)" <<'END'
bgpdump:
BGP4MP|1700000000|A|203.0.113.0/24
BGP4MP_ET|1700000000.123456|A|198.51.100.0/24
BGP4MP|1700000000|A|192.0.2.0/24
os-ken:
Bgp4MpMrtRecord 203.0.113.0/24
Bgp4MpEtMrtRecord 198.51.100.0/24
UnknownMrtRecord type 0 with 63 bytes
END
