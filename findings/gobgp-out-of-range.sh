#!/bin/bash
# Subject: gobgp and gobgpd 3.10.0 (Debian 12), values given on the command line.
# A good guess: a number that does not fit is refused, as gobgp refuses an AS number or a MED beyond 32 bits; and what
#   the configuration takes as a neighbour set, `gobgp policy neighbor add` takes, too.
# Seen: a community is cut to the largest that fits (64500:70000 becomes 64500:65535), an AS number in dotted notation
#   that does not fit becomes AS 0. A prefix that is added to a neighbour set is lost, so the set is made and empty;
#   with a single address, or in the configuration, it works. All exit with 0.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian gobgpd=3.10.0-1+b4
cat >"$work/gobgpd.toml" <<'END'
[global.config]
as = 64500
router-id = "192.0.2.1"
port = -1
[[defined-sets.neighbor-sets]]
neighbor-set-name = "configured"
neighbor-info-list = ["192.0.2.0/24"]
END
# shellcheck disable=SC2016 # The inner shell expands it.
seen "$(unshare --user --map-root-user --net bash -euc '
    ip link set lo up
    "$1/gobgpd" --config-file "$2" --api-hosts 127.0.0.1:50051 >/dev/null 2>&1 &
    for _ in $(seq 100); do "$1/gobgp" global rib summary >/dev/null 2>&1 && break || sleep 0.1; done
    try() { local status=0; "$1/gobgp" "${@:2}" >/dev/null 2>&1 || status=$?; echo "${*:2}: $status"; }
    try "$1" global rib add 203.0.113.0/24 community 64500:70000
    try "$1" global rib add 198.51.100.0/24 aspath 1.1
    try "$1" global rib add 192.0.2.0/24 aspath 65536.1
    try "$1" global rib add 192.0.2.0/25 aspath 4294967296
    try "$1" policy neighbor add prefix 192.0.2.0/24
    try "$1" policy neighbor add address 192.0.2.2
    "$1/gobgp" global rib -j | python3 -c "
import json, sys
for prefix, paths in sorted(json.load(sys.stdin).items()):
    attributes = paths[0][\"attrs\"]
    print(prefix, *[segment[\"asns\"] for each in attributes for segment in each.get(\"as_paths\", [])],
        *[f\"{number >> 16}:{number & 65535}\" for each in attributes for number in each.get(\"communities\", [])])"
    "$1/gobgp" policy neighbor -j | python3 -c "
import json, sys
for each in sorted(json.load(sys.stdin), key=lambda each: each[\"name\"]):
    print(each[\"name\"], each.get(\"list\", []))"
    kill %1' bash "$root/usr/bin" "$work/gobgpd.toml")" <<'END'
global rib add 203.0.113.0/24 community 64500:70000: 0
global rib add 198.51.100.0/24 aspath 1.1: 0
global rib add 192.0.2.0/24 aspath 65536.1: 0
global rib add 192.0.2.0/25 aspath 4294967296: 1
policy neighbor add prefix 192.0.2.0/24: 0
policy neighbor add address 192.0.2.2: 0
192.0.2.0/24 [0]
198.51.100.0/24 [65537]
203.0.113.0/24 64500:65535
address ['192.0.2.2/32']
configured ['192.0.2.0/24']
prefix []
END
