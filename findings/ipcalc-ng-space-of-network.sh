#!/bin/bash
# Subject: ipcalc-ng 1.0.2 (Debian 12).
# A good guess: the address space is that of the address, and a point-to-point /31 has no broadcast address (RFC 3021).
# Seen: it is that of the first address of the network: 192.0.2.1 is documentation with /24, and of the IPv4 service continuity prefix
#   with /16. The broadcast address of a /31 is 255.255.255.255, while its last host is one of the two.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian ipcalc-ng=1.0.2-1
spaces=$(for net in 192.0.2.1/24 192.0.2.1/16 192.0.2.1/31; do
    echo "$net: $(unpacked "$root/usr/bin/ipcalc-ng" "$net" | sed -n 's/^\(Address space\|Broadcast\|HostMax\):\t*/\1 /p' | paste -sd,)"
done)
seen "$spaces" <<'END'
192.0.2.1/24: Broadcast 192.0.2.255,Address space Documentation (TEST-NET-1),HostMax 192.0.2.254
192.0.2.1/16: Broadcast 192.0.255.255,Address space IPv4 Service Continuity Prefix,HostMax 192.0.255.254
192.0.2.1/31: Broadcast 255.255.255.255,Address space Documentation (TEST-NET-1),HostMax 192.0.2.1
END
