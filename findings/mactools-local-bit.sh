#!/bin/bash
# Subject: mactools 1.8.0 for Python, IPv6 addresses made of MACs.
# A good guess: the bit `locally administered` is turned round (RFC 4291): 52:54:00... gives 5054:..., bc:24:11... gives be24:11...
# Seen: 2 is added to the first octet, which is the same for a vendor's MAC only. A MAC with the bit, as QEMU's 52:54:00 and
#   02:..., gives an address that no guest has. `binary` is a decimal number of ones and zeros, without the zeros at its beginning.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
python mactools==1.8.0
seen "$(python3 - <<'END'
from mactools import MacAddress
for text in ("bc:24:11:00:00:01", "52:54:00:00:00:01", "02:00:00:00:00:01"):
    mac = MacAddress(text)
    print(text, mac.link_local_address, mac.binary, type(mac.binary).__name__)
END
)" <<'END'
bc:24:11:00:00:01 fe80::be24:11ff:fe00:0001 101111000010010000010001000000000000000000000001 int
52:54:00:00:00:01 fe80::5454:00ff:fe00:0001 10100100101010000000000000000000000000000000001 int
02:00:00:00:00:01 fe80::0400:00ff:fe00:0001 100000000000000000000000000000000000000001 int
END
