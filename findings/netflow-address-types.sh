#!/bin/bash
# Subject: netflow 0.12.2 for Python, which parses NetFlow 5, NetFlow 9 and IPFIX.
# A good guess: a field of one kind has one type whatever carried it, so that flows of all three can be put into one
#   table.
# Seen: an IPv4 address is a number in NetFlow 5 and IPFIX and text in NetFlow 9; IPv6 likewise; a MAC is a number
#   everywhere. The sampling interval of version 5 has the two bits of the mode in it: one in a hundred is 16484.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
python netflow==0.12.2
seen "$(python3 - <<'END'
import struct
from netflow import parse_packet
address, mac = bytes([203, 0, 113, 5]), bytes.fromhex("525400000001")
record = address + bytes(44)
packet = parse_packet(struct.pack("!HHIIIIBBH", 5, 1, 0, 1700000000, 0, 1, 0, 0, 1 << 14 | 100) + record)
print("NetFlow 5:", repr(packet.flows[0].IPV4_SRC_ADDR), "sampling", packet.header.sampling_interval)
template = struct.pack("!HHHHHH", 256, 2, 8, 4, 56, 6)
data = struct.pack("!HH", 256, 16) + address + mac + bytes(2)
header = struct.pack("!HHIIII", 9, 2, 0, 1700000000, 1, 0)
packet = parse_packet(header + struct.pack("!HH", 0, 16) + template + data, {"netflow": {}, "ipfix": {}})
print("NetFlow 9:", packet.flows[0].data)
header = struct.pack("!HHIII", 10, 48, 1700000000, 1, 0)
packet = parse_packet(header + struct.pack("!HH", 2, 16) + template + data, {"netflow": {}, "ipfix": {}})
print("IPFIX:", packet.flows[0].data)
END
)" <<'END'
NetFlow 5: 3405803781 sampling 16484
NetFlow 9: {'IPV4_SRC_ADDR': '203.0.113.5', 'IN_SRC_MAC': 90520730730497}
IPFIX: {'sourceMacAddress': 90520730730497, 'sourceIPv4Address': 3405803781}
END
