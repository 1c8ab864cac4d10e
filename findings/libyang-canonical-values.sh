#!/bin/bash
# Subject: yanglint of libyang 2.1.30 (Debian 12), values of ietf-inet-types and ietf-yang-types (RFC 6991), which it brings along.
# A good guess: either values stay as they were written, or each gets the canonical form that its type states: lengths masked,
#   IPv6 compressed, a MAC in small letters.
# Seen: some of them. A prefix loses its host bits, so that an interface's 203.0.113.5/24 cannot be told from 203.0.113.9/24, and
#   both in one leaf-list are refused as the same; a time loses its zone. A MAC keeps its capitals, and one MAC in two spellings is two.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian libyang2-tools=2.1.30-2 libyang2=2.1.30-2
cat >"$work/guest.yang" <<'END'
module guest {
  yang-version 1.1;
  namespace "urn:guest";
  prefix g;
  import ietf-inet-types { prefix inet; }
  import ietf-yang-types { prefix yang; }
  leaf-list prefix { type inet:ip-prefix; }
  leaf-list address { type inet:ip-address; }
  leaf-list mac { type yang:mac-address; }
  leaf-list time { type yang:date-and-time; }
}
END
modules=$root/usr/share/yang/modules/libyang
seen "$(while read -r line; do
    echo "$line" >"$work/data.json"
    echo "$line"
    unpacked "$root/usr/bin/yanglint" -p "$modules" -f json "$work/guest.yang" "$work/data.json" 2>&1 | tr -s ' \n' ' ' | sed "s|$work/||g; s/^/  /; s/ $//"
    echo
done <<'END'
{"guest:prefix": ["203.0.113.5/24", "2001:DB8:0::5/64"]}
{"guest:prefix": ["203.0.113.5/24", "203.0.113.9/24"]}
{"guest:address": ["2001:DB8:0::5", "::ffff:cb00:7105"]}
{"guest:mac": ["52:54:00:AB:00:01", "52:54:00:ab:00:01"]}
{"guest:time": ["2026-11-30T22:00:00+01:00"]}
END
)" <<'END'
{"guest:prefix": ["203.0.113.5/24", "2001:DB8:0::5/64"]}
  { "guest:prefix": [ "203.0.113.0/24", "2001:db8::/64" ] }
{"guest:prefix": ["203.0.113.5/24", "203.0.113.9/24"]}
  libyang err : Duplicate instance of "prefix". (Data location "/guest:prefix[.='203.0.113.0/24']".) YANGLINT[E]: Failed to parse input data file "data.json".
{"guest:address": ["2001:DB8:0::5", "::ffff:cb00:7105"]}
  { "guest:address": [ "2001:db8::5", "::ffff:203.0.113.5" ] }
{"guest:mac": ["52:54:00:AB:00:01", "52:54:00:ab:00:01"]}
  { "guest:mac": [ "52:54:00:AB:00:01", "52:54:00:ab:00:01" ] }
{"guest:time": ["2026-11-30T22:00:00+01:00"]}
  { "guest:time": [ "2026-11-30T21:00:00+00:00" ] }
END
