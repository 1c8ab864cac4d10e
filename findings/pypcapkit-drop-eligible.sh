#!/bin/bash
# Subject: PyPCAPKit 1.4.1.post2 for Python, the tag of a VLAN.
# A good guess: a tag's priority, its bit `drop eligible` and its number are read each from its own bits.
# Seen: the bit is whether the priority is not 0: a frame of priority 5 may be dropped, one of priority 0 that has the bit may not. A
#   tag of a provider (802.1ad), and so the ARP within, is bytes only.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
python pypcapkit==1.4.1.post2 aenum==3.1.17 chardet==7.7.0 dictdumper==0.8.4.post6 tbtrim==0.3.1
seen "$(python3 - "$work/frames.pcap" 2>/dev/null <<'END'
import struct, sys
import pcapkit
guest, node = bytes.fromhex("525400000001"), bytes.fromhex("525400000002")
arp = b"\x08\x06" + struct.pack("!HHBBH", 1, 0x800, 6, 4, 2) + guest + bytes([203, 0, 113, 5]) + node + bytes([203, 0, 113, 1])
tags = [(priority, drop) for priority in (0, 5) for drop in (0, 1)]
frames = [node + guest + struct.pack("!HH", 0x8100, priority << 13 | drop << 12 | 10) + arp for priority, drop in tags]
frames.append(node + guest + struct.pack("!HH", 0x88A8, 100) + frames[0][12:])
with open(sys.argv[1], "wb") as capture:
    capture.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
    for frame in frames:
        capture.write(struct.pack("<IIII", 1700000000, 0, len(frame), len(frame)) + frame)
read = pcapkit.extract(fin=sys.argv[1], nofile=True, store=True).frame
for (priority, drop), frame in zip(tags, read):
    print(f"priority {priority}, drop {drop}:", frame.info.ethernet.c_tag.tci)
print(read[0].protochain, "and", read[-1].protochain)
END
)" <<'END'
priority 0, drop 0: TCI(pcp=0, dei=False, vid=10)
priority 0, drop 1: TCI(pcp=0, dei=False, vid=10)
priority 5, drop 0: TCI(pcp=5, dei=True, vid=10)
priority 5, drop 1: TCI(pcp=5, dei=True, vid=10)
Ethernet:802.1Q:ARP and Ethernet:IEEE_Std_802_1Q_Service_VLAN_tag_identifier
END
