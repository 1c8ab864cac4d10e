#!/bin/bash
# Subject: scapy 2.8.0, dpkt 1.9.8 and dhcppython 0.1.4 for Python, on DHCP options in several pieces, as servers send many routes (RFC 3442).
# A good guess: pieces of one option are put together before they are read, wherever they were cut, as RFC 3396 demands; and
#   options in the fields `sname` and `file` are read if option 52 says that there are some (RFC 2131).
# Seen: none of the three does either. Cut between two routes, scapy has two options and dhcppython the second only, so one route is lost. Cut
#   within a route, scapy reads no option from there to the end, and dhcppython's is half of the value as if it were the whole. Of two
#   pieces with a name server each dhcppython has the last. scapy cannot write an option that would need two pieces.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
python scapy==2.8.0 dpkt==1.9.8 dhcppython==0.1.4
seen "$(python3 -W ignore - 2>&1 <<'END'
import struct
import dpkt
from dhcppython.packet import DHCPPacket
from scapy.layers.dhcp import BOOTP, DHCP


def piece(code, value):
    return bytes([code, len(value)]) + value


def answer(options, sname=b"", file=b""):
    return struct.pack("!BBBBIHH4s4x8x16s64s128s", 2, 1, 6, 0, 1, 0, 0, bytes(4), bytes.fromhex("525400000005"), sname, file) \
        + bytes.fromhex("63825363") + piece(53, b"\x05") + options + b"\xff"


def text(value):
    return value.hex() if isinstance(value, bytes) else str(value)


routes = bytes([24, 198, 51, 100, 203, 0, 113, 1]) + bytes([0, 203, 0, 113, 1])
name, server = piece(12, b"web"), [piece(6, bytes([9, 9, 9, last])) for last in (9, 10)]
for title, message in (
        ("one piece", answer(piece(121, routes) + name)),
        ("cut between routes", answer(piece(121, routes[:8]) + name + piece(121, routes[8:]))),
        ("cut within a route", answer(piece(121, routes[:5]) + piece(121, routes[5:]) + name)),
        ("two name servers", answer(server[0] + server[1])),
        ("in sname and file", answer(piece(52, b"\x03"), name + b"\xff", server[0] + b"\xff"))):
    print(title + ":")
    options = [option if isinstance(option, bytes) else option[1:] for option in BOOTP(message)[DHCP].options[1:] if option != "end"]
    print("  scapy:     ", "; ".join(text(option) if isinstance(option, bytes) else " ".join(map(text, option)) for option in options))
    print("  dpkt:      ", "; ".join(f"{code} {text(value)}" for code, value in dpkt.dhcp.DHCP(message).opts[1:]))
    options = [option.value for option in DHCPPacket.from_bytes(message).options][1:]
    print("  dhcppython:", "; ".join(f"{key} {value}" for option in options for key, value in option.items() if key != "end_option"))
try:
    bytes(DHCP(options=[("classless_static_routes", [f"198.51.{net}.0/24:203.0.113.1" for net in range(40)])]))
except struct.error as error:
    print("scapy, 40 routes:", error)
END
)" <<'END'
one piece:
  scapy:      ['198.51.100.0/24:203.0.113.1', '0.0.0.0/0:203.0.113.1']; 776562
  dpkt:       121 18c63364cb00710100cb007101; 12 776562
  dhcppython: ClasslessStaticRouteOption_121 0x18 0xC6 0x33 0x64 0xCB 0x00 0x71 0x01 0x00 0xCB 0x00 0x71 0x01; hostname web
cut between routes:
  scapy:      ['198.51.100.0/24:203.0.113.1']; 776562; ['0.0.0.0/0:203.0.113.1']
  dpkt:       121 18c63364cb007101; 12 776562; 121 00cb007101
  dhcppython: ClasslessStaticRouteOption_121 0x00 0xCB 0x00 0x71 0x01; hostname web
cut within a route:
  scapy:      790518c63364cb790800710100cb0071010c03776562ff
  dpkt:       121 18c63364cb; 121 00710100cb007101; 12 776562
  dhcppython: ClasslessStaticRouteOption_121 0x00 0x71 0x01 0x00 0xCB 0x00 0x71 0x01; hostname web
two name servers:
  scapy:      9.9.9.9; 9.9.9.10
  dpkt:       6 09090909; 6 0909090a
  dhcppython: dns_servers ['9.9.9.10']
in sname and file:
  scapy:      3
  dpkt:       52 03
  dhcppython: option_overload both fields are used to hold options
scapy, 40 routes: While building field 'options': ubyte format requires 0 <= number <= 255
END
