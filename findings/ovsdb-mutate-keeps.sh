#!/bin/bash
# Subject: ovsdb-server and ovsdb-client of Open vSwitch 3.1.0 (Debian 12), by which a port's external_ids are set.
# A good guess: `insert` of a key into a map sets it; a transaction that fails ends ovsdb-client with an error; a set of addresses is a list
#   and a dump has the columns in the order asked for.
# Seen: a key that is there keeps its old value, and `count` is 1 all the same: it counts the rows looked at. A failed transaction is
#   an object among the results, and the exit status is 0. A set of one address is the address itself, in the next row a list. The
#   columns of a dump come sorted by name.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian openvswitch-common=3.1.0-2+deb12u1 openvswitch-switch=3.1.0-2+deb12u1 libunbound8=1.17.1-2+deb12u4 libxdp1=1.3.1-1 libbpf1=1:1.1.2-0+deb12u1
cat >"$work/schema" <<'END'
{"name": "Guests", "version": "1.0.0", "tables": {"Port": {"isRoot": true, "columns": {
  "name": {"type": "string"},
  "addresses": {"type": {"key": "string", "min": 0, "max": "unlimited"}},
  "tag": {"type": {"key": {"type": "integer", "minInteger": 0, "maxInteger": 4095}, "min": 0, "max": 1}},
  "external_ids": {"type": {"key": "string", "value": "string", "min": 0, "max": "unlimited"}}}}}}
END
ovs() { unpacked "$root/usr/$1" "${@:2}"; }
ovs bin/ovsdb-tool create "$work/database" "$work/schema"
ovs sbin/ovsdb-server --remote="punix:$work/socket" --unixctl="$work/control" --pidfile="$work/pid" --detach --no-chdir -vconsole:off -vsyslog:off "$work/database"
trap 'kill "$(cat "$work/pid")"; rm -rf "$work"' EXIT
transact() {
    status=0
    # The row's identifier is new each time.
    ovs bin/ovsdb-client transact "unix:$work/socket" "[\"Guests\",$1]" | sed 's/"uuid","[^"]*"/"uuid","..."/' || status=$?
    echo "  status $status"
}
seen "$(transact '{"op":"insert","table":"Port","row":{"name":"tap100i0","addresses":["set",["203.0.113.5"]],"external_ids":["map",[["mac","52:54:00:00:00:01"]]]}}'
transact '{"op":"insert","table":"Port","row":{"name":"tap101i0","addresses":["set",["203.0.113.6","203.0.113.7"]]}}'
transact '{"op":"mutate","table":"Port","where":[["name","==","tap100i0"]],"mutations":[["external_ids","insert",["map",[["mac","52:54:00:00:00:02"]]]]]}'
transact '{"op":"select","table":"Port","where":[],"columns":["addresses","external_ids"]}'
transact '{"op":"update","table":"Port","where":[],"row":{"tag":5000}}'
ovs bin/ovsdb-client -f csv -d bare dump "unix:$work/socket" Guests Port name external_ids addresses | sort)" <<'END'
[{"uuid":["uuid","..."]}]
  status 0
[{"uuid":["uuid","..."]}]
  status 0
[{"count":1}]
  status 0
[{"rows":[{"addresses":"203.0.113.5","external_ids":["map",[["mac","52:54:00:00:00:01"]]]},{"addresses":["set",["203.0.113.6","203.0.113.7"]],"external_ids":["map",[]]}]}]
  status 0
[{"details":"5000 is not in the valid range 0 to 4095 (inclusive)","error":"constraint violation"}]
  status 0
203.0.113.5,mac=52:54:00:00:00:01,tap100i0
203.0.113.6 203.0.113.7,,tap101i0
Port table
addresses,external_ids,name
END
