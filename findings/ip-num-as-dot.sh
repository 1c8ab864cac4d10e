#!/bin/bash
# Subject: ip-num 1.6.2 for JavaScript, its class for AS numbers.
# A good guess: it reads the notations that it writes (AS64500, 1.10, AS numbers with and without letters), and what it does not know raises.
# Seen: with both, letters and dot, it reads up to the dot: AS1.10 is AS1, not AS65546, AS0.64500 is AS0; without the letters the same
#   text is right.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
npm ip-num@1.6.2
cat >"$work/read.mjs" <<'END'
import ipNum from "ip-num";
for (const text of ["AS64500", "64500", "1.10", "AS1.10", "0.64500", "AS0.64500"]) {
    const number = ipNum.Asn.fromString(text);
    console.log(text, "is", number.toString(), number.toASDotPlus());
}
END
seen "$(node "$work/read.mjs")" <<'END'
AS64500 is AS64500 0.64500
64500 is AS64500 0.64500
1.10 is AS65546 1.10
AS1.10 is AS1 0.1
0.64500 is AS64500 0.64500
AS0.64500 is AS0 0.0
END
