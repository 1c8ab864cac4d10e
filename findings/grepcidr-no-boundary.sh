#!/bin/bash
# Subject: grepcidr 2.0 (Debian 12), used to find an address or prefix in logs.
# A good guess: `grepcidr 203.0.113.0/24` finds lines with an address of that prefix, so neither `1203.0.113.5`, which is no address,
#   nor the larger prefix 203.0.113.0/16.
# Seen: it finds both. It begins to read in the middle of a number when the whole is too large (yet 203.0.113.5.7 is told apart), and
#   of a prefix it looks at the address only, so a /16 with host bits counts as part of a /24.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian grepcidr=2.0-2
printf '%s\n' 203.0.113.5 1203.0.113.5 203.0.113.5.7 203.0.113.0/16 203.0.112.0/23 >"$work/log"
seen "$("$root/usr/bin/grepcidr" 203.0.113.0/24 "$work/log")" <<'END'
203.0.113.5
1203.0.113.5
203.0.113.0/16
END
