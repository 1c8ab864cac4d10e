#!/bin/bash
# Subject: dpkt 1.9.8, frames of 60 bytes whose content is shorter (the rest is padding).
# A good guess: reading a frame and writing it again gives the same frame, or one without padding, whatever is inside.
# Seen: it depends on what is inside. ARP keeps its 18 bytes of padding as data of the ARP packet; IPv4 loses all of it, and the frame that is
#   written is shorter than Ethernet allows. RARP (0x8035), the same format as ARP, is not read at all: its content stays bytes.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
python dpkt==1.9.8
cat >"$work/frames.py" <<'END'
import struct
import dpkt

ether = bytes.fromhex("ffffffffffff" "020000aabbcc")
arp = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + ether[6:] + bytes([203, 0, 113, 5]) + bytes(6) + bytes([203, 0, 113, 1])
udp = dpkt.ip.IP(src=bytes([203, 0, 113, 5]), dst=bytes([203, 0, 113, 1]), p=17, data=dpkt.udp.UDP(sport=1, dport=2, data=b"hi"))
udp.len = len(udp)
for name, kind, content in ("ARP", 0x0806, arp), ("RARP", 0x8035, arp), ("IPv4", 0x0800, bytes(udp)):
    frame = ether + struct.pack("!H", kind) + content
    padded = frame + bytes(60 - len(frame))
    read = dpkt.ethernet.Ethernet(padded)
    print(f"{name}: {len(frame)} bytes and padding to {len(padded)}, written again {len(bytes(read))}, content {type(read.data).__name__}")
END
seen "$(python3 "$work/frames.py")" <<'END'
ARP: 42 bytes and padding to 60, written again 60, content ARP
RARP: 42 bytes and padding to 60, written again 60, content bytes
IPv4: 44 bytes and padding to 60, written again 44, content IP
END
