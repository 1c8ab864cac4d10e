#!/bin/bash
# Subject: bgpd of FRR 8.4.4 (Debian 12), its MRT dumps `updates` and `routes-mrt` of one session with BIRD 2.0.12, read by mrtparse 2.2.0.
# A good guess: the table has the attributes that came with the routes, a path identifier where the record's type says so, and an
#   abbreviated next hop for IPv6, as RFC 6396 and RFC 8050 say.
# Seen: extended communities are left out, which the dump of the updates has. The next hop of IPv6 has the whole attribute around it,
#   with the prefix once more; and there without the identifier, also in a record with identifiers, so that a parser which makes allowance
#   for the first part stumbles over the second. Own routes come from a peer 0.0.0.0 with AS 0.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian frr=8.4.4-1.1~deb12u2 bird2=2.0.12-7 libyang2=2.1.30-2 libjson-c5=0.16-2 libssh-gcrypt-4=0.10.6-0+deb12u3
libraries=$libraries:$libraries/frr
python mrtparse==2.2.0
cat >"$work/bird.conf" <<'END'
router id 192.0.2.1;
protocol device {}
protocol static {
    ipv4;
    route 203.0.113.0/24 blackhole { bgp_community.add((64500, 1)); bgp_ext_community.add((rt, 64500, 5)); bgp_large_community.add((64500, 1, 2)); };
}
protocol static { ipv6; route 2001:db8::/32 blackhole; }
protocol bgp {
    local 192.0.2.1 port 1179 as 64500;
    neighbor 192.0.2.2 port 1180 as 64501;
    multihop;
    ipv4 { export all; import none; add paths tx; next hop self; };
    ipv6 { export all; import none; add paths tx; next hop address 2001:db8::1; };
}
END
cat >"$work/bgpd.conf" <<END
router bgp 64501
 bgp router-id 192.0.2.2
 no bgp ebgp-requires-policy
 no bgp network import-check
 neighbor 192.0.2.1 remote-as 64500
 neighbor 192.0.2.1 ebgp-multihop
 neighbor 192.0.2.1 passive
 neighbor 192.0.2.1 update-source 192.0.2.2
 address-family ipv6 unicast
  network 2001:db8:5::/48
  neighbor 192.0.2.1 activate
 exit-address-family
dump bgp updates $work/updates
dump bgp routes-mrt $work/table 1
END
sessions() {
    ip link set lo up
    for address in 192.0.2.1/32 192.0.2.2/32 2001:db8::1/128; do ip address add "$address" dev lo; done
    unpacked "$root/usr/lib/frr/bgpd" -n -Z -S -d -p 1180 -l 192.0.2.2 -f "$work/bgpd.conf" -i "$work/bgpd.pid" --vty_socket "$work" -z "$work/zebra"
    unpacked "$root/usr/sbin/bird" -c "$work/bird.conf" -s "$work/bird.ctl" -P "$work/bird.pid"
    # A table is written each second; the one that is read has the routes of both families.
    for _ in $(seq 300); do
        sleep 0.1
        cp "$work/table" "$work/dump" 2>/dev/null || true
        [[ $(read_dump "$work/dump" 2>/dev/null | grep -c '^2001:db8') == 2 ]] && break
    done
    kill "$(cat "$work/bird.pid")" "$(cat "$work/bgpd.pid")"
}
read_dump() {
    python3 - "$1" <<'END'
import ipaddress, struct, sys
with open(sys.argv[1], "rb") as dump:
    data, records = dump.read(), []
while len(data) >= 12:
    _, kind, subtype, length = struct.unpack("!IHHI", data[:12])
    body, data = data[12:12 + length], data[12 + length:]
    if kind == 16 and subtype == 9 and body[38] == 2:
        attributes = body[43:43 + struct.unpack("!H", body[41:43])[0]]
        records.append(["an update, BGP4MP 9", None, attributes])
    elif kind == 13 and subtype == 1:
        records = []
        start = 8 + struct.unpack("!H", body[4:6])[0]
        peers = [str(ipaddress.ip_address(body[start + 5 + i * 13:start + 9 + i * 13])) + " AS" + str(int.from_bytes(body[start + 9 + i * 13:start + 13 + i * 13], "big"))
                 for i in range(1 + (len(body) - start - 13) // 13)]
    elif kind == 13:
        octets = (body[4] + 7) // 8
        prefix = body[5:5 + octets] + bytes((4 if subtype in (2, 8) else 16) - octets)
        entry = body[7 + octets:]
        records.append([f"{ipaddress.ip_address(prefix)}/{body[4]}, TABLE_DUMP_V2 {subtype}", peers[entry[1]], entry[12 if subtype in (8, 10) else 8:]])
names = {1: "ORIGIN", 2: "AS_PATH", 3: "NEXT_HOP", 4: "MED", 8: "COMMUNITIES", 14: "MP_REACH", 16: "EXTENDED", 32: "LARGE"}
for title, peer, attributes in records:
    found = []
    while attributes:
        length, start = (struct.unpack("!H", attributes[2:4])[0], 4) if attributes[0] & 16 else (attributes[2], 3)
        name = names.get(attributes[1], str(attributes[1]))
        found.append(name + (" " + attributes[start:start + length].hex() if name == "MP_REACH" else ""))
        attributes = attributes[start + length:]
    if found and (peer or "EXTENDED" in found):
        print(title + (f" from {peer}" if peer else "") + "\n ", ", ".join(found))
END
}
export -f sessions read_dump unpacked
export root work libraries
unshare -n bash -c sessions >&2
seen "$(read_dump "$work/updates"
read_dump "$work/dump"
python3 - "$work/dump" <<'END'
import sys
from mrtparse import Reader
print(*sorted({record.err_msg for record in Reader(sys.argv[1]) if record.err}))
END
)" <<'END'
an update, BGP4MP 9
  ORIGIN, AS_PATH, NEXT_HOP, COMMUNITIES, EXTENDED, LARGE
203.0.113.0/24, TABLE_DUMP_V2 8 from 192.0.2.1 AS64500
  ORIGIN, AS_PATH, NEXT_HOP, COMMUNITIES, LARGE
2001:db8::/32, TABLE_DUMP_V2 10 from 192.0.2.1 AS64500
  ORIGIN, AS_PATH, MP_REACH 0002011020010db8000000000000000000000001002020010db8
2001:db8:5::/48, TABLE_DUMP_V2 4 from 0.0.0.0 AS0
  ORIGIN, AS_PATH, MED, MP_REACH 0002011000000000000000000000000000000000003020010db80005
Invalid prefix length 184 (IPv6)
END
