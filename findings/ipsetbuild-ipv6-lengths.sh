#!/bin/bash
# Subject: ipsetbuild of libcorkipset 1.1.1+git20171111 (Debian 12), which makes a binary set of a list of addresses and networks.
# A good guess: a network whose host bits are 0 is taken, of either family, as its help says; others are refused.
# Seen: IPv4 is as it says. Of IPv6 networks without a host bit most are refused, 2001:db8::/32, /48 and /56 among them, /60 and /64 are
#   not; with --loose-cidr, the same lines are taken and right.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian libcorkipset-utils=1.1.1+git20171111.6842a63-2 libcorkipset1=1.1.1+git20171111.6842a63-2 libcork16=1.0.0~rc3-3
made() {
    echo "$2" >"$work/list"
    # shellcheck disable=SC2086 # An option or none.
    if unpacked "$root/usr/bin/ipsetbuild" $1 -o "$work/set" "$work/list" 2>"$work/error"; then
        echo "$2${1:+ $1}: has $(unpacked "$root/usr/bin/ipsetcat" --networks "$work/set")"
    else
        echo "$2${1:+ $1}: $(sed -n 's/.*line 1: //p' "$work/error")"
    fi
}
seen "$(for network in 203.0.113.0/24 203.0.113.5/24 2001:db8::/32 2001:db8::/48 2001:db8:5::/56 2001:db8:5::/60 2001:db8:5::/64 2001:db8:5::/96 2001:db8:5::5; do
    made '' $network
done
made --loose-cidr 2001:db8::/32)" <<'END'
203.0.113.0/24: has 203.0.113.0/24
203.0.113.5/24: Bad CIDR block: "203.0.113.5/24"
2001:db8::/32: Bad CIDR block: "2001:db8::/32"
2001:db8::/48: Bad CIDR block: "2001:db8::/48"
2001:db8:5::/56: Bad CIDR block: "2001:db8:5::/56"
2001:db8:5::/60: has 2001:db8:5::/60
2001:db8:5::/64: has 2001:db8:5::/64
2001:db8:5::/96: has 2001:db8:5::/96
2001:db8:5::5: has 2001:db8:5::5
2001:db8::/32 --loose-cidr: has 2001:db8::/32
END
