#!/bin/bash
# Subject: radvd 2.19 (Debian 12), `radvd --configtest`.
# A good guess: what RFC 4861 section 6.2.1 forbids fails the test: a minimal interval above the maximal one, a router lifetime below it.
# Seen: of the values only lifetimes of prefixes are compared. Intervals that contradict each other, an MTU below IPv6's 1280 and prefixes with
#   host bits are `syntax ok` with exit status 0; they are looked at when the daemon runs.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian radvd=1:2.19-1+b1
tested=$(for line in 'MinRtrAdvInterval 30; MaxRtrAdvInterval 20;' 'AdvDefaultLifetime 5;' 'AdvLinkMTU 100;' 'prefix 2001:db8::1/64 { };' \
    'prefix 2001:db8::/64 { AdvValidLifetime 100; AdvPreferredLifetime 200; };'; do
    echo "interface lo { AdvSendAdvert on; $line };" >"$work/radvd.conf"
    status=0
    unpacked "$root/usr/sbin/radvd" --configtest --config "$work/radvd.conf" 2>/dev/null || status=$?
    echo "$line $status"
done)
seen "$tested" <<'END'
MinRtrAdvInterval 30; MaxRtrAdvInterval 20; 0
AdvDefaultLifetime 5; 0
AdvLinkMTU 100; 0
prefix 2001:db8::1/64 { }; 0
prefix 2001:db8::/64 { AdvValidLifetime 100; AdvPreferredLifetime 200; }; 1
END
