#!/bin/bash
# Subject: tcpdump 4.99.3 with libpcap 1.10.3 (Debian 12), `vlan` in filters, on one ARP request each: untagged, VLAN 10, VLAN 20.
# A good guess: `and` and `or` commute: `not vlan and arp` finds the untagged one, `vlan 10 or vlan 20` both tagged ones.
# Seen: from the word `vlan` on everything is looked for four bytes later, negated or not, whatever brackets say. The first finds none
#   (`arp and not vlan` finds it); the second only VLAN 10, because it looks for VLAN 20 inside of another tag.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian tcpdump=4.99.3-1 libpcap0.8=1.10.3-1 libdbus-1-3=1.14.10-1~deb12u1
python3 - "$work/frames" <<'END'
import struct, sys
def frame(*tags):
    arp = bytes.fromhex("0001080006040001" "020000aa0001cb007105" "000000000000cb007101")
    header = bytes.fromhex("ffffffffffff020000aa0001") + b"".join(struct.pack("!HH", 0x8100, tag) for tag in tags)
    return (header + b"\x08\x06" + arp).ljust(60, b"\0")
with open(sys.argv[1], "wb") as out:
    out.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
    for data in frame(), frame(10), frame(20):
        out.write(struct.pack("<IIII", 0, 0, len(data), len(data)) + data)
END
counts=$(for filter in "arp" "arp and not vlan" "not vlan and arp" "vlan 10" "vlan 20" "vlan 10 or vlan 20" "(vlan 10) or (vlan 20)" \
    "arp or (vlan and arp)" "(vlan and arp) or arp"; do
    echo "$filter: $(unpacked "$root/usr/bin/tcpdump" -Z root -nr "$work/frames" "$filter" 2>/dev/null | wc -l)"
done)
seen "$counts" <<'END'
arp: 1
arp and not vlan: 1
not vlan and arp: 0
vlan 10: 1
vlan 20: 1
vlan 10 or vlan 20: 1
(vlan 10) or (vlan 20): 1
arp or (vlan and arp): 3
(vlan and arp) or arp: 2
END
