#!/bin/bash
# Subject: BIRD 2.0.12 (Debian 12), addresses and prefixes in its filters, by `birdc eval`.
# A good guess: an IPv4-mapped address (::ffff:203.0.113.5) is an IPv6 address, which lies in ::ffff:203.0.113.0/120 and in ::/0 and in
#   no IPv4 prefix.
# Seen: it is the IPv4 address: it is printed as one, lies in 203.0.113.0/24, and in no IPv6 prefix, not even in ::/0 and its own /120.
#   The prefix stays IPv6. And an address can be looked up in one prefix, not in a set of prefixes: an error of types when the filter runs.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian bird2=2.0.12-7 libssh-gcrypt-4=0.10.6-0+deb12u3
echo 'router id 192.0.2.1; protocol device {}' >"$work/bird.conf"
bird() { unpacked "$root/usr/sbin/$1" -s "$work/bird.ctl" "${@:2}"; }
# shellcheck disable=SC2016 # For the inner one.
seen "$(export -f bird unpacked && export libraries root work && unshare -n bash -c '
    bird bird -c "$work/bird.conf" -P "$work/bird.pid"
    while read -r line; do echo "$line: $(bird birdc -r "eval $line" | tail -n 1)"; done
    kill "$(cat "$work/bird.pid")"' <<'END'
::ffff:203.0.113.5
::ffff:203.0.113.0/120
::ffff:203.0.113.5 ~ 203.0.113.0/24
::ffff:203.0.113.5 ~ ::ffff:203.0.113.0/120
::ffff:203.0.113.5 ~ ::/0
2001:db8::5 ~ ::/0
203.0.113.5 ~ [ 203.0.113.0/24+ ]
END
)" <<'END'
::ffff:203.0.113.5: 203.0.113.5
::ffff:203.0.113.0/120: ::ffff:203.0.113.0/120
::ffff:203.0.113.5 ~ 203.0.113.0/24: TRUE
::ffff:203.0.113.5 ~ ::ffff:203.0.113.0/120: FALSE
::ffff:203.0.113.5 ~ ::/0: FALSE
2001:db8::5 ~ ::/0: TRUE
203.0.113.5 ~ [ 203.0.113.0/24+ ]: filter preevaluation, line 1: ~ applied on unknown type pair
END
