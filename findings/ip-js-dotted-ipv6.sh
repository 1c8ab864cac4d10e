#!/bin/bash
# Subject: ip.js 1.3.10 for JavaScript, IPv6 addresses that end in an IPv4 address (RFC 4291, 2.2).
# A good guess: ::ffff:203.0.113.5 is ::ffff:cb00:7105, or an error.
# Seen: it is ::ffff:203: the first number is read as hexadecimal and the rest is dropped. A prefix with host bits is cut into
#   prefixes with the same host bits.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
npm ip.js@1.3.10
cat >"$work/read.mjs" <<'END'
import Ip from "ip.js";
for (const text of ["::ffff:cb00:7105", "::ffff:203.0.113.5", "64:ff9b::203.0.113.5", "1:2:3:4:5:6:203.0.113.5"])
    console.log(text, "is", new Ip.Addr(text).toString());
for (const text of ["::ffff:203.0.113.0/120", "203.0.113.5/24"])
    console.log(text, "is", new Ip.Prefix(text).toString(), "in halves", new Ip.Prefix(text).slice(text.includes(":") ? 121 : 25).join(" "));
END
seen "$(node "$work/read.mjs")" <<'END'
::ffff:cb00:7105 is ::ffff:cb00:7105
::ffff:203.0.113.5 is ::ffff:203
64:ff9b::203.0.113.5 is 64:ff9b::203
1:2:3:4:5:6:203.0.113.5 is 1:2:3:4:5:6:203::
::ffff:203.0.113.0/120 is ::ffff:203/120 in halves ::ffff:203/121 ::ffff:283/121
203.0.113.5/24 is 203.0.113.5/24 in halves 203.0.113.5/25 203.0.113.133/25
END
