#!/bin/bash
# Subject: tshark 4.0.17 (Debian 12), its warning `Duplicate IP address configured`, and its newline-delimited JSON (`-T ek`).
# A good guess: the frame is warned of that takes an address to another MAC in the same network, of IPv4 and IPv6; and a key is once in an object.
# Seen: one address in two VLANs is a duplicate, and a neighbour advertisement that takes an address over is none. Whoever is named first
#   stays the owner, even as the target of a router's answer, and the warning points to that frame. In `ek`, eth_eth_addr is in its
#   object twice, so that a parser has the sender's MAC only (ipv6_ipv6_addr is a list).
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian tshark=4.0.17-0+deb12u3 libwireshark16=4.0.17-0+deb12u3 libwiretap13=4.0.17-0+deb12u3 libwsutil14=4.0.17-0+deb12u3 \
    libwireshark-data=4.0.17-0+deb12u3 libc-ares2=1.18.1-3 liblua5.2-0=5.2.4-3 libsmi2ldbl=0.4.8+dfsg2-16 libsnappy1v5=1.1.9-3
export WIRESHARK_DATA_DIR=$root/usr/share/wireshark HOME=$work
python3 - "$work" <<'END'
import ipaddress, struct, sys
router, guest, other = (bytes.fromhex(f"52540000000{n}") for n in (1, 5, 6))
def arp(source, sender, target, operation=1, target_mac=bytes(6), vlan=None):
    tag = struct.pack("!HH", 0x8100, vlan) if vlan else b""
    addresses = [ipaddress.ip_address(address).packed for address in (sender, target)]
    return (target_mac if operation == 2 else b"\xff" * 6) + source + tag + struct.pack("!HHHBBH", 0x806, 1, 0x800, 6, 4, operation) \
        + source + addresses[0] + target_mac + addresses[1]
def advertisement(source, target):
    ends = ipaddress.ip_address(target).packed + ipaddress.ip_address("ff02::1").packed
    body = struct.pack("!BBHI", 136, 0, 0, 0x20000000) + ends[:16] + b"\2\1" + source
    words = struct.unpack("!36H", ends + struct.pack("!II", len(body), 58) + body)
    total = sum(words) & 0xFFFF
    total += sum(words) >> 16
    body = body[:2] + struct.pack("!H", ~total & 0xFFFF) + body[4:]
    return bytes.fromhex("333300000001") + source + struct.pack("!HIHBB", 0x86DD, 6 << 28, len(body), 58, 255) + ends + body
captures = {
    "one network": [arp(router, "203.0.113.1", "203.0.113.5", 2, guest), arp(other, "203.0.113.5", "203.0.113.1"),
                    arp(guest, "203.0.113.5", "203.0.113.1")],
    "two VLANs": [arp(guest, "203.0.113.5", "203.0.113.1", vlan=10), arp(other, "203.0.113.5", "203.0.113.1", vlan=20)],
    "IPv6": [advertisement(guest, "2001:db8::5"), advertisement(other, "2001:db8::5")],
}
for name, frames in captures.items():
    with open(f"{sys.argv[1]}/{name}.pcap", "wb") as capture:
        capture.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for second, frame in enumerate(frames):
            capture.write(struct.pack("<IIII", 1700000000 + second, 0, len(frame), len(frame)) + frame)
END
tshark() { unpacked "$root/usr/bin/tshark" -r "$work/$1.pcap" "${@:2}" 2>/dev/null; }
seen "$(for capture in "one network" "two VLANs" IPv6; do
    echo "$capture"
    tshark "$capture" -T fields -E separator=' ' -e frame.number -e eth.src -e arp.duplicate-address-frame -e _ws.expert.message | sed 's/ *$//'
done
tshark IPv6 -T ek | tail -n 1 | grep -o '"eth_eth_addr":"[^"]*"\|"ipv6_ipv6_addr":[^]]*]')" <<'END'
one network
1 52:54:00:00:00:01
2 52:54:00:00:00:06 1 Duplicate IP address configured (203.0.113.5)
3 52:54:00:00:00:05
two VLANs
1 52:54:00:00:00:05
2 52:54:00:00:00:06 1 Duplicate IP address configured (203.0.113.5)
IPv6
1 52:54:00:00:00:05
2 52:54:00:00:00:06
"eth_eth_addr":"33:33:00:00:00:01"
"eth_eth_addr":"52:54:00:00:00:06"
"ipv6_ipv6_addr":["2001:db8::5","ff02::1"]
END
