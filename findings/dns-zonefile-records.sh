#!/bin/bash
# Subject: dns-zonefile 0.3.2 for JavaScript, zone files of addresses and of their names, beside dnspython 2.9.2 for Python.
# A good guess: a record is read as RFC 1035 section 5.1 writes it: class and TTL in either order, in any case, a blank for the owner of the
#   line before, names relative to the `$ORIGIN` above them; a line that is not understood is an error.
# Seen: a line with the class before the TTL, in small letters or with a unit is left out without a word, and so is $GENERATE. A blank is the
#   owner before for PTR, for AAAA it is `@`. There is one `$origin`, the last, for all names. Of a SOA's `2h` and `1w` the
#   letters are cut off: 2 seconds and 1 second.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
npm dns-zonefile@0.3.2
python dnspython==2.9.2
cat >"$work/read.mjs" <<'END'
import { readFileSync } from "fs";
import zonefile from "dns-zonefile";

const { $origin, $ttl, soa, ns, ...records } = zonefile.parse(readFileSync(process.argv[2], "utf8"));
if (process.argv[3]) console.log(`  SOA refresh ${soa.refresh} expire ${soa.expire}`);
const found = Object.entries(records).flatMap(([type, all]) => all.map(({ name, ttl, fullname, ...value }) =>
  `${name} ${type.toUpperCase()} ${Object.values(value)} ${ttl ?? $ttl}`));
console.log("  dns-zonefile: origin", $origin, "|", found.join(", "));
END
cat >"$work/read.py" <<'END'
import sys
import dns.zone

zone = dns.zone.from_file(sys.argv[1], relativize=False)
found = [f"{name} {records.rdtype.name} {value} {records.ttl}" for name, node in zone.nodes.items() for records in node.rdatasets
         for value in records if records.rdtype.name not in ("SOA", "NS")]
print("  dnspython:    origin", zone.origin, "|", ", ".join(found))
END
zone() {
    echo "${*:2}"
    printf '%s\n' "\$ORIGIN $1" "\$TTL 300" "@ IN SOA ns.example. host.example. ( 1 2h 3600 1w 300 )" "@ IN NS ns.example." "${@:2}" >"$work/zone"
    node "$work/read.mjs" "$work/zone"
    python3 "$work/read.py" "$work/zone"
}
seen "$(reverse=113.0.203.in-addr.arpa.
zone $reverse '5 IN PTR a.example.'
zone $reverse '5 600 IN PTR a.example.'
zone $reverse '5 IN 600 PTR a.example.'
zone $reverse '5 1h IN PTR a.example.'
zone $reverse '5 in ptr a.example.'
zone $reverse "\$GENERATE 5-6 \$ PTR host-\$.example."
zone $reverse '5 IN PTR a.example.' ' IN PTR b.example.'
zone example. 'web IN A 203.0.113.5' ' IN AAAA 2001:db8::5'
zone example. 'web IN A 203.0.113.5' "\$ORIGIN guests.example." 'web IN A 203.0.113.6'
node "$work/read.mjs" "$work/zone" soa | head -1)" <<'END'
5 IN PTR a.example.
  dns-zonefile: origin 113.0.203.in-addr.arpa. | 5 PTR a.example. 300
  dnspython:    origin 113.0.203.in-addr.arpa. | 5.113.0.203.in-addr.arpa. PTR a.example. 300
5 600 IN PTR a.example.
  dns-zonefile: origin 113.0.203.in-addr.arpa. | 5 PTR a.example. 600
  dnspython:    origin 113.0.203.in-addr.arpa. | 5.113.0.203.in-addr.arpa. PTR a.example. 600
5 IN 600 PTR a.example.
  dns-zonefile: origin 113.0.203.in-addr.arpa. | 
  dnspython:    origin 113.0.203.in-addr.arpa. | 5.113.0.203.in-addr.arpa. PTR a.example. 600
5 1h IN PTR a.example.
  dns-zonefile: origin 113.0.203.in-addr.arpa. | 
  dnspython:    origin 113.0.203.in-addr.arpa. | 5.113.0.203.in-addr.arpa. PTR a.example. 3600
5 in ptr a.example.
  dns-zonefile: origin 113.0.203.in-addr.arpa. | 
  dnspython:    origin 113.0.203.in-addr.arpa. | 5.113.0.203.in-addr.arpa. PTR a.example. 300
$GENERATE 5-6 $ PTR host-$.example.
  dns-zonefile: origin 113.0.203.in-addr.arpa. | 
  dnspython:    origin 113.0.203.in-addr.arpa. | 5.113.0.203.in-addr.arpa. PTR host-5.example. 300, 6.113.0.203.in-addr.arpa. PTR host-6.example. 300
5 IN PTR a.example.  IN PTR b.example.
  dns-zonefile: origin 113.0.203.in-addr.arpa. | 5 PTR a.example. 300, 5 PTR b.example. 300
  dnspython:    origin 113.0.203.in-addr.arpa. | 5.113.0.203.in-addr.arpa. PTR a.example. 300, 5.113.0.203.in-addr.arpa. PTR b.example. 300
web IN A 203.0.113.5  IN AAAA 2001:db8::5
  dns-zonefile: origin example. | web A 203.0.113.5 300, @ AAAA 2001:db8::5 300
  dnspython:    origin example. | web.example. A 203.0.113.5 300, web.example. AAAA 2001:db8::5 300
web IN A 203.0.113.5 $ORIGIN guests.example. web IN A 203.0.113.6
  dns-zonefile: origin guests.example. | web A 203.0.113.5 300, web A 203.0.113.6 300
  dnspython:    origin example. | web.example. A 203.0.113.5 300, web.guests.example. A 203.0.113.6 300
  SOA refresh 2 expire 1
END
