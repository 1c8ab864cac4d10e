#!/bin/bash
# Subject: aggregate6 1.0.15, which merges lists of prefixes for filters of routers.
# A good guess: a prefix with host bits is masked, or the run fails, so that no filter is made of half a list.
# Seen: it is left out, a line on stderr says so, and the exit status is 0.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
python aggregate6==1.0.15 py-radix==1.1.0
printf '%s\n' 203.0.113.0/25 203.0.113.128/25 198.51.100.7/24 2001:db8::/33 2001:db8:8000::/33 >"$work/list"
status=0
merged=$(python3 "$work/python/bin/aggregate6" "$work/list" 2>"$work/said") || status=$?
seen "$merged
exit status $status
$(cat "$work/said")" <<'END'
203.0.113.0/24
2001:db8::/32
exit status 0
ERROR: '198.51.100.7/24' is not a valid IP network, ignoring.
END
