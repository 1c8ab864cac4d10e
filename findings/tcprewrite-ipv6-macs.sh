#!/bin/bash
# Subject: tcprewrite of tcpreplay 4.4.3 (Debian 12), on frames of a neighbour advertisement, of UDP in both families, and of ARP.
# A good guess: it changes what it is told to: with a new TTL no MAC, with `--enet-smac` the source's MAC in every frame, with `--srcipmap` or
#   `--pnat` the address in all places, or a warning of the ones that it leaves.
# Seen: whatever the option, both MACs of each IPv6 frame become multicast ones made of the addresses (33:33 and the last four bytes), the
#   source's, too, and also where a MAC was given; IPv4 is as told. `--pnat` follows an address into ARP, `--srcipmap` does not, and
#   none into the target of neighbour discovery, whose checksum is wrong besides.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian tcpreplay=4.4.3-1 libdumbnet1=1.16.3-1 libpcap0.8=1.10.3-1 libdbus-1-3=1.14.10-1~deb12u1
python3 - "$work/frames.pcap" <<'END'
import ipaddress, struct, sys


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xffff:
        total = (total >> 16) + (total & 0xffff)
    return struct.pack("!H", ~total & 0xffff)


def ipv6(protocol, payload, where):
    ends = ipaddress.ip_address("2001:db8::5").packed + ipaddress.ip_address("2001:db8::1").packed
    total = checksum(ends + struct.pack("!II", len(payload), protocol) + payload)
    return struct.pack("!IHBB", 6 << 28, len(payload), protocol, 255) + ends + payload[:where] + total + payload[where + 2:]


guest, router = bytes.fromhex("525400000005"), bytes.fromhex("525400000001")
arp = bytes.fromhex("0001080006040002") + guest + bytes([203, 0, 113, 5]) + router + bytes([203, 0, 113, 1])
udp = struct.pack("!HHHH", 1000, 2000, 12, 0) + b"data"
header = struct.pack("!BBHHHBBH", 0x45, 0, 32, 1, 0, 64, 17, 0) + bytes([203, 0, 113, 5, 203, 0, 113, 1])
advertisement = bytes.fromhex("8800000020000000") + ipaddress.ip_address("2001:db8::5").packed + b"\x02\x01" + guest
frames = [(0x806, arp), (0x800, header[:10] + checksum(header) + header[12:] + udp),
          (0x86dd, ipv6(17, udp, 6)), (0x86dd, ipv6(58, advertisement, 2))]
with open(sys.argv[1], "wb") as file:
    file.write(struct.pack("<IHHiIII", 0xa1b2c3d4, 2, 4, 0, 0, 65535, 1))
    for kind, content in frames:
        frame = (router + guest + struct.pack("!H", kind) + content).ljust(60, b"\0")
        file.write(struct.pack("<IIII", 1700000000, 0, len(frame), len(frame)) + frame)
END
cat >"$work/show" <<'END'
import ipaddress, struct, sys


def right(frame):
    payload = frame[54:54 + struct.unpack("!H", frame[18:20])[0]]
    data = frame[22:54] + struct.pack("!II", len(payload), frame[20]) + payload
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xffff:
        total = (total >> 16) + (total & 0xffff)
    return "right" if total == 0xffff else "wrong"


with open(sys.argv[1], "rb") as file:
    file.read(24)
    while head := file.read(16):
        frame = file.read(struct.unpack("<I", head[8:12])[0])
        address = {6: lambda: frame[28:32], 0: lambda: frame[26:30], 0xdd: lambda: frame[22:38]}[frame[13]]()
        target = f", target {ipaddress.ip_address(frame[62:78])}" if frame[13] == 0xdd and frame[54] == 136 else ""
        checksum = f", checksum {right(frame)}" if frame[13] == 0xdd else ""
        kind = {6: "ARP", 0: "IPv4 UDP", 0xdd: "IPv6 neighbour discovery" if target else "IPv6 UDP"}[frame[13]]
        print(f"  {frame[6:12].hex(':')} > {frame[:6].hex(':')} {kind} of {ipaddress.ip_address(address)}{target}{checksum}")
END
shown() {
    echo "$1:"
    python3 "$work/show" "$2"
}
rewritten() {
    unpacked "$root/usr/bin/tcprewrite" "$@" -i "$work/frames.pcap" -o "$work/out.pcap" >&2
    shown "$*" "$work/out.pcap"
}
seen "$(shown before "$work/frames.pcap"
rewritten --ttl=5
rewritten --enet-smac=52:54:00:00:00:aa
rewritten --srcipmap=203.0.113.5/32:198.51.100.9/32
rewritten --pnat=203.0.113.5/32:198.51.100.9/32
rewritten '--pnat=[2001:db8::5/128]:[2001:db8::9/128]')" <<'END'
before:
  52:54:00:00:00:05 > 52:54:00:00:00:01 ARP of 203.0.113.5
  52:54:00:00:00:05 > 52:54:00:00:00:01 IPv4 UDP of 203.0.113.5
  52:54:00:00:00:05 > 52:54:00:00:00:01 IPv6 UDP of 2001:db8::5, checksum right
  52:54:00:00:00:05 > 52:54:00:00:00:01 IPv6 neighbour discovery of 2001:db8::5, target 2001:db8::5, checksum right
--ttl=5:
  52:54:00:00:00:05 > 52:54:00:00:00:01 ARP of 203.0.113.5
  52:54:00:00:00:05 > 52:54:00:00:00:01 IPv4 UDP of 203.0.113.5
  33:33:00:00:00:05 > 33:33:00:00:00:01 IPv6 UDP of 2001:db8::5, checksum right
  33:33:00:00:00:05 > 33:33:00:00:00:01 IPv6 neighbour discovery of 2001:db8::5, target 2001:db8::5, checksum right
--enet-smac=52:54:00:00:00:aa:
  52:54:00:00:00:aa > 52:54:00:00:00:01 ARP of 203.0.113.5
  52:54:00:00:00:aa > 52:54:00:00:00:01 IPv4 UDP of 203.0.113.5
  33:33:00:00:00:05 > 33:33:00:00:00:01 IPv6 UDP of 2001:db8::5, checksum right
  33:33:00:00:00:05 > 33:33:00:00:00:01 IPv6 neighbour discovery of 2001:db8::5, target 2001:db8::5, checksum right
--srcipmap=203.0.113.5/32:198.51.100.9/32:
  52:54:00:00:00:05 > 52:54:00:00:00:01 ARP of 203.0.113.5
  52:54:00:00:00:05 > 52:54:00:00:00:01 IPv4 UDP of 198.51.100.9
  33:33:00:00:00:05 > 33:33:00:00:00:01 IPv6 UDP of 2001:db8::5, checksum right
  33:33:00:00:00:05 > 33:33:00:00:00:01 IPv6 neighbour discovery of 2001:db8::5, target 2001:db8::5, checksum right
--pnat=203.0.113.5/32:198.51.100.9/32:
  52:54:00:00:00:05 > 52:54:00:00:00:01 ARP of 198.51.100.9
  52:54:00:00:00:05 > 52:54:00:00:00:01 IPv4 UDP of 198.51.100.9
  33:33:00:00:00:05 > 33:33:00:00:00:01 IPv6 UDP of 2001:db8::5, checksum right
  33:33:00:00:00:05 > 33:33:00:00:00:01 IPv6 neighbour discovery of 2001:db8::5, target 2001:db8::5, checksum right
--pnat=[2001:db8::5/128]:[2001:db8::9/128]:
  52:54:00:00:00:05 > 52:54:00:00:00:01 ARP of 203.0.113.5
  52:54:00:00:00:05 > 52:54:00:00:00:01 IPv4 UDP of 203.0.113.5
  33:33:00:00:00:09 > 33:33:00:00:00:01 IPv6 UDP of 2001:db8::9, checksum right
  33:33:00:00:00:09 > 33:33:00:00:00:01 IPv6 neighbour discovery of 2001:db8::9, target 2001:db8::5, checksum wrong
END
