#!/bin/bash
# Subject: dpkt 1.9.8, scapy 2.8.0 and python-pcapng 2.1.1, reading the times of packets in pcapng files.
# A good guess: what pcapng says of times for each interface (resolution, offset) is read by all three, as by tcpdump
#   and Wireshark.
# Seen: each reads another half. dpkt uses the first interface's resolution for all: nanoseconds of a second interface
#   lie in the year 55840. scapy and python-pcapng leave out the offset: the packet is from 1970. scapy keeps the
#   interfaces of the section before, so that two files put behind each other are wrong, too, and gives a simple packet
#   block, which has no time, the time of reading; dpkt leaves such a packet out.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
python dpkt==1.9.8 scapy==2.8.0 python-pcapng==2.1.1 six==1.17.0
seen "$(cd "$work" && python3 - 2>/dev/null <<'END'
import struct, dpkt, pcapng, scapy.utils
from pcapng.blocks import EnhancedPacket, SimplePacket

def block(kind, body):
    body += bytes(-len(body) % 4)
    return struct.pack("<II", kind, 12 + len(body)) + body + struct.pack("<I", 12 + len(body))
def option(code, value):
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)
def interface(*options):
    return block(1, struct.pack("<HHI", 1, 0, 262144) + b"".join(options) + (option(0, b"") if options else b""))
def packet(number, time):
    return block(6, struct.pack("<IIIII", number, time >> 32, time & 0xFFFFFFFF, len(frame), len(frame)) + frame)

frame = bytes.fromhex("ffffffffffff0200000000010806" "0001080006040001" "020000000001cb007105" "000000000000cb007109")
section = block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
nanoseconds, now = option(9, b"\x09"), 1_700_000_000
files = {
    "two interfaces": section + interface() + interface(nanoseconds) + packet(0, now * 10**6) + packet(1, now * 10**9),
    "offset": section + interface(option(14, struct.pack("<q", now))) + packet(0, 0),
    "two sections": section + interface() + packet(0, now * 10**6)
        + section + interface(nanoseconds) + packet(0, now * 10**9),
    "simple packet": section + interface() + block(3, struct.pack("<I", len(frame)) + frame) + packet(0, now * 10**6),
}
def word(time):
    return "none" if time is None else "reading" if now + 10**6 < time < 10 * now else str(int(time))
def shown(times):
    return " ".join(map(word, times))
for name, data in files.items():
    with open("file", "wb") as out:
        out.write(data)
    with open("file", "rb") as file:
        print(f"{name}: dpkt", shown(time for time, _ in dpkt.pcapng.Reader(file)))
    print(f"{name}: scapy", shown(float(read.time) for read in scapy.utils.rdpcap("file")))
    with open("file", "rb") as file:
        blocks = [read for read in pcapng.FileScanner(file) if isinstance(read, (EnhancedPacket, SimplePacket))]
    print(f"{name}: python-pcapng", shown(getattr(read, "timestamp", None) for read in blocks))
END
)" <<'END'
two interfaces: dpkt 1700000000 1700000000000
two interfaces: scapy 1700000000 1700000000
two interfaces: python-pcapng 1700000000 1700000000
offset: dpkt 1700000000
offset: scapy 0
offset: python-pcapng 0
two sections: dpkt 1700000000 1700000000000
two sections: scapy 1700000000 1700000000000
two sections: python-pcapng 1700000000 1700000000
simple packet: dpkt 1700000000
simple packet: scapy reading 1700000000
simple packet: python-pcapng none 1700000000
END
