#!/bin/bash
# Subject: vtysh of FRR 8.4.4 (Debian 12), `vtysh --dryrun --inputfile`, the test that frr-reload builds upon.
# A good guess: a test of a configuration refuses a line that contradicts itself or has a number out of range.
# Seen: it knows the grammar only. `ge 26 le 25` of a prefix list, and a community beyond 16 bits, pass with exit status 0, and so does a
#   prefix with host bits; a word that is not in the grammar fails.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian frr=8.4.4-1.1~deb12u2 libyang2=2.1.30-2 libjson-c5=0.16-2
libraries=$libraries:$libraries/frr
mkdir "$work/config"
touch "$work/config/vtysh.conf"
tested=$(for line in 'ip prefix-list p seq 5 permit 203.0.113.0/24 ge 26 le 25' 'ip prefix-list p seq 5 permit 203.0.113.1/24' \
    'ip prefix-list p seq 5 permit 203.0.113.0/24 between 25 26'; do
    echo "$line" >"$work/frr.conf"
    status=0
    unpacked "$root/usr/bin/vtysh" --dryrun --config_dir "$work/config" --inputfile "$work/frr.conf" >/dev/null 2>&1 || status=$?
    echo "$line: $status"
done)
printf 'route-map m permit 10\n set community 65000:70000\n' >"$work/frr.conf"
status=0
unpacked "$root/usr/bin/vtysh" --dryrun --config_dir "$work/config" --inputfile "$work/frr.conf" >/dev/null 2>&1 || status=$?
seen "$tested
set community 65000:70000: $status" <<'END'
ip prefix-list p seq 5 permit 203.0.113.0/24 ge 26 le 25: 0
ip prefix-list p seq 5 permit 203.0.113.1/24: 0
ip prefix-list p seq 5 permit 203.0.113.0/24 between 25 26: 2
set community 65000:70000: 0
END
