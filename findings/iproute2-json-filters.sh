#!/bin/bash
# Subject: iproute2 6.1.0 (Debian 12), `ip -json address show` with a filter.
# A good guess: the array has the interfaces that the text has, each with its name, so its length is their number.
# Seen: an interface that `up` leaves out of the text is an empty object in JSON. `scope` makes empty objects among the
#   addresses, and keeps interfaces that have none left; `to` makes them, too. `label` leaves away the name of the
#   interface.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian iproute2=6.1.0-3 libbpf1=1:1.1.2-0+deb12u1 libmnl0=1.0.4-3
# shellcheck disable=SC2016 # The inner shell expands it.
unpacked unshare --user --map-root-user --net bash -euc '
    ip() { "$1/bin/ip" "${@:2}"; }
    for which in all default; do echo 1 >"/proc/sys/net/ipv6/conf/$which/disable_ipv6"; done
    ip "$1" link set lo up
    ip "$1" link add br0 type bridge
    ip "$1" link add down0 type veth peer name down1
    ip "$1" link set br0 up
    ip "$1" address add 203.0.113.5/24 dev br0
    ip "$1" address add 198.51.100.5/24 dev br0 scope link
    for filter in up "scope link" "label br0" "to 203.0.113.0/24"; do
        echo "$filter: $(ip "$1" -json address show $filter)"
    done' bash "$root" >"$work/answers"
seen "$(python3 - "$work/answers" <<'END'
import json, sys
for line in open(sys.argv[1]):
    filter, answer = line.split(": ", 1)
    print(filter + ":")
    for link in json.loads(answer):
        addresses = [address.get("local", "{}") for address in link.get("addr_info", [])]
        print("  " + " ".join([link.get("ifname", "(no name)"), *addresses] if link else ["{}"]))
END
)" <<'END'
up:
  lo 127.0.0.1
  br0 198.51.100.5 203.0.113.5
  {}
  {}
scope link:
  br0 198.51.100.5 {}
  down1
  down0
label br0:
  (no name) 198.51.100.5 203.0.113.5
  (no name)
  (no name)
to 203.0.113.0/24:
  br0 {} 203.0.113.5
END
