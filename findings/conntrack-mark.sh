#!/bin/bash
# Subject: conntrack 1.4.7 (Debian 12), the mark of an entry.
# A good guess: options may stand in any order, and `-L --output save` writes what `--load-file` needs to make the same
#   entry.
# Seen: `--status` behind `--mark` overwrites the mark with the number of the status bits (ASSURED is 4, FIXED_TIMEOUT
#   1024); before it, both are kept. `save` leaves the mark out, so that all entries come back with mark 0.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian conntrack=1:1.4.7-1+b2 libnetfilter-conntrack3=1.0.9-3 libnfnetlink0=1.0.2-2 libmnl0=1.0.4-3
# shellcheck disable=SC2016 # The inner shell expands it.
seen "$(unpacked unshare --user --map-root-user --net bash -euc '
    conntrack() { "$conntrack" "$@" 2>/dev/null; }
    conntrack=$1 port=1000 saved=$2
    make() {
        port=$((port + 1))
        conntrack --create --protonum udp --src 203.0.113.5 --dst 198.51.100.7 --sport "$port" --dport 53 \
            --timeout 600 "$@"
        echo "$*: $(conntrack -L -p udp --sport "$port" | grep -o "mark=[0-9]*")"
    }
    make --mark 7
    make --status ASSURED --mark 7
    make --mark 7 --status ASSURED
    make --mark 7 --status FIXED_TIMEOUT
    conntrack -L --output save >"$saved"
    conntrack -F
    conntrack --load-file "$saved"
    echo "loaded again: $(conntrack -L | grep -o "mark=[0-9]*" | sort | uniq -c | tr -s " ")"
    ' bash "$root/usr/sbin/conntrack" "$work/saved")" <<'END'
--mark 7: mark=7
--status ASSURED --mark 7: mark=7
--mark 7 --status ASSURED: mark=4
--mark 7 --status FIXED_TIMEOUT: mark=1024
loaded again:  4 mark=0
END
