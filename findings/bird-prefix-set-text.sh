#!/bin/bash
# Subject: BIRD 2.0.12 (Debian 12), how it prints a set of prefixes and the answer of roa_check, in a log or by `birdc eval`.
# A good guess: as it is written in a filter, as sets of numbers and communities are: `[ 203.0.113.0/24{25,26} ]`.
# Seen: the lengths that match are the bits of an address: `{0.0.0.192}`, in IPv6 `{0:0:1:8000::}`. With `-`, the prefix is followed by its
#   bigger halves. None of it can be read back. The answer of roa_check is a number, which has its name again in `if`.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian bird2=2.0.12-7 libssh-gcrypt-4=0.10.6-0+deb12u3
cat >"$work/bird.conf" <<'END'
router id 192.0.2.1;
protocol device {}
roa4 table roas;
protocol static { roa4; route 203.0.113.0/24 max 24 as 64500; }
END
bird() { unpacked "$root/usr/sbin/$1" -s "$work/bird.ctl" "${@:2}"; }
# shellcheck disable=SC2016 # For the inner one.
seen "$(export -f bird unpacked && export libraries root work && unshare -n bash -c '
    bird bird -c "$work/bird.conf" -P "$work/bird.pid"
    while read -r line; do echo "$line: $(bird birdc -r "eval $line" | tail -n 1)"; done
    kill "$(cat "$work/bird.pid")"' <<'END'
[ 64500..64510 ]
[ (64500, 1..5) ]
[ 203.0.113.0/24 ]
[ 203.0.113.0/24{25,26} ]
[ 203.0.113.0/24{0.0.0.192} ]
[ 192.0.0.0/4- ]
[ 2001:db8::/32{48,49} ]
roa_check(roas, 203.0.113.0/24, 64500)
roa_check(roas, 203.0.113.0/25, 64500)
roa_check(roas, 203.0.113.0/24, 64500) = ROA_VALID
END
)" <<'END'
[ 64500..64510 ]: [64500..64510]
[ (64500, 1..5) ]: [(64500,1)..(64500,5)]
[ 203.0.113.0/24 ]: [203.0.113.0/24{0.0.1.0}]
[ 203.0.113.0/24{25,26} ]: [203.0.113.0/24{0.0.0.192}]
[ 203.0.113.0/24{0.0.0.192} ]: syntax error, unexpected IP4, expecting NUM
[ 192.0.0.0/4- ]: [0.0.0.0/0, 128.0.0.0/1{128.0.0.0}, 192.0.0.0/2{64.0.0.0}, 192.0.0.0/3{32.0.0.0}, 192.0.0.0/4{240.0.0.0}]
[ 2001:db8::/32{48,49} ]: [2001:db8::/32{0:0:1:8000::}]
roa_check(roas, 203.0.113.0/24, 64500): (enum 35)1
roa_check(roas, 203.0.113.0/25, 64500): (enum 35)2
roa_check(roas, 203.0.113.0/24, 64500) = ROA_VALID: TRUE
END
