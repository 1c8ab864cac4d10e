#!/bin/bash
# Subject: OpenBGPD 7.7 (Debian 12), prefixes without the zeros at the end, as `bgpd -nv` prints them; iproute2 beside it.
# A good guess: 10/8 is 10.0.0.0/8, as for iproute2 and in the RFCs, or is refused: the grammar has a rule of its own for a number, a slash and
#   a number, so it is meant to be written.
# Seen: it is 0.0.0.10/8: what stands there is taken as the old abbreviation of an address, whose last number fills the rest. A list of private
#   networks so written holds 0.0.0.0/8, 172.0.0.0/12 and 192.0.0.0/16, and none of them. Host bits stay as they are written, in networks to
#   announce, too. The exit status is 0.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian openbgpd=7.7-2
configured() {
    local status=0
    printf '%s\n' 'AS 64500' 'router-id 192.0.2.1' 'listen on 127.0.0.1' "$1" >"$work/bgpd.conf"
    chmod 600 "$work/bgpd.conf"
    unpacked "$root/usr/sbin/bgpd" -nv -f "$work/bgpd.conf" >"$work/read" 2>&1 || status=$?
    echo "$1 -> $(sed -n '/^prefix-set/,$p; /^network/p; /^deny/p' "$work/read" | sed '/^$/,$d' | xargs) status $status"
}
# shellcheck disable=SC2016 # The inner shell expands it.
seen "$(unshare --user --map-root-user --net bash -euc '
    ip link set lo up
    for prefix in 10/8 172.16/12 192.168/16; do
        ip route add blackhole $prefix
    done
    echo "iproute2: $(ip route show | xargs)"'
configured 'deny from any prefix 10.0.0.0/8'
configured 'deny from any prefix 10/8'
configured 'deny from any prefix 172.16/12'
configured 'prefix-set private { 10/8 or-longer, 172.16/12 or-longer, 192.168/16 or-longer }'
configured 'network 203.0.113/24'
configured 'network 203.0.113.5/24')" <<'END'
iproute2: blackhole 10.0.0.0/8 blackhole 172.16.0.0/12 blackhole 192.168.0.0/16
deny from any prefix 10.0.0.0/8 -> deny from any prefix 10.0.0.0/8 status 0
deny from any prefix 10/8 -> deny from any prefix 0.0.0.10/8 status 0
deny from any prefix 172.16/12 -> deny from any prefix 172.0.0.16/12 status 0
prefix-set private { 10/8 or-longer, 172.16/12 or-longer, 192.168/16 or-longer } -> prefix-set private { 0.0.0.10/8 or-longer, 172.0.0.16/12 or-longer 192.0.0.168/16 or-longer } status 0
network 203.0.113/24 -> network 203.0.0.113/24 status 0
network 203.0.113.5/24 -> network 203.0.113.5/24 status 0
END
