#!/bin/bash
# Subject: isc_dhcp_leases 0.10.0 for Python, which reads the lease file of ISC's DHCP server.
# A good guess: the file is a log in which the last entry of an address holds, as dhcpd.leases(5) says, and
#   `get_current()` follows it.
# Seen: every entry counts for itself. A lease that was given back is current as long as the entry before says so, an
#   address that went to another MAC is current for both, and of one MAC's two addresses only the last is there, because
#   the key is the MAC.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
python isc_dhcp_leases==0.10.0 six==1.17.0
lease() {
    printf 'lease %s {\n  starts 2 2026/11/24 10:00:00;\n  ends %s;\n  binding state %s;\n  hardware ethernet %s;\n}\n' "$@"
}
{
    lease 203.0.113.5 never active 52:54:00:00:00:01
    lease 203.0.113.5 '2 2026/11/24 10:05:00' free 52:54:00:00:00:01
    lease 203.0.113.6 never active 52:54:00:00:00:02
    lease 203.0.113.7 never active 52:54:00:00:00:02
    lease 203.0.113.8 never active 52:54:00:00:00:03
    lease 203.0.113.8 never active 52:54:00:00:00:04
} >"$work/dhcpd.leases"
seen "$(python3 - "$work/dhcpd.leases" <<'END'
import sys
from isc_dhcp_leases import IscDhcpLeases
for mac, lease in sorted(IscDhcpLeases(sys.argv[1]).get_current().items()):
    print(mac, lease.ip)
END
)" <<'END'
52:54:00:00:00:01 203.0.113.5
52:54:00:00:00:02 203.0.113.7
52:54:00:00:00:03 203.0.113.8
52:54:00:00:00:04 203.0.113.8
END
