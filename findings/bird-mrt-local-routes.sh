#!/bin/bash
# Subject: the table dumps of BIRD 2.0.12 (Debian 12, its protocol `mrt`), read by bgpdump 1.6.2.
# A good guess: each route of the dump is one of BGP, with the attributes that BGP demands: ORIGIN, AS_PATH, NEXT_HOP.
# Seen: the whole table is dumped, also what no BGP session brought: static routes come from a peer `::` of AS 0 that is listed as if it
#   were one, with what a filter set and nothing else, of IPv6 often no attribute at all; and all flags of
#   those attributes are 0, also of a community, which is optional and transitive. bgpdump makes up the origin INCOMPLETE and the next
#   hop 255.255.255.255 for them.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian bird2=2.0.12-7 libssh-gcrypt-4=0.10.6-0+deb12u3 bgpdump=1.6.2-2
cat >"$work/bird.conf" <<END
router id 192.0.2.1;
protocol device {}
protocol static { ipv4; route 203.0.113.0/24 blackhole; route 198.51.100.0/24 blackhole { bgp_community.add((64500, 1)); bgp_med = 7; }; }
protocol mrt { table "master4"; filename "$work/table"; period 1; }
END
dumped() {
    unpacked "$root/usr/sbin/bird" -c "$work/bird.conf" -s "$work/bird.ctl" -P "$work/bird.pid"
    for _ in $(seq 100); do [[ ! -s $work/table ]] || break; sleep 0.1; done
    kill "$(cat "$work/bird.pid")"
}
export -f dumped unpacked
export root work libraries
unshare -n bash -c dumped >&2
seen "$(unpacked "$root/usr/bin/bgpdump" -m "$work/table" 2>/dev/null | head -n 2 | cut -d '|' -f 1,3- | sort
python3 - "$work/table" <<'END'
import struct, sys
with open(sys.argv[1], "rb") as dump:
    data = dump.read()
for _ in range(3):
    subtype, length = struct.unpack("!HI", data[6:12])
    body, data = data[12:12 + length], data[12 + length:]
    # The peers; or the prefix and the attributes.
    print(f"TABLE_DUMP_V2 {subtype}:", body[15:].hex(" ") if subtype == 1 else f"{body[5:8].hex(' ')} / {body[18:].hex(' ')}")
END
)" <<'END'
TABLE_DUMP2|B|::|0|198.51.100.0/24||INCOMPLETE|255.255.255.255|0|7|64500:1|NAG||
TABLE_DUMP2|B|::|0|203.0.113.0/24||INCOMPLETE|255.255.255.255|0|0||NAG||
TABLE_DUMP_V2 1: 03 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00
TABLE_DUMP_V2 2: c6 33 64 / 00 04 04 00 00 00 07 00 08 04 fb f4 00 01
TABLE_DUMP_V2 2: cb 00 71 / 
END
