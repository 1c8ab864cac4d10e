#!/bin/bash
# Subject: pyroute2 0.9.7 for Python, `addr()` and `route()` with `mask`.
# A good guess: `mask=24` beside an address without a length means the same in both, or is refused where it is unknown.
# Seen: in addr() it is the prefix length, in route() it is left out without a word: the route to the /24 is one to a
#   single address. `dst_len` works. A misspelt name is left out, too: `mtuu` in link() changes nothing and raises
#   nothing.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
python pyroute2==0.9.7
seen "$(unshare --user --map-root-user --net python3 - <<'END'
from pyroute2 import IPRoute
with IPRoute() as kernel:
    kernel.link("add", ifname="br0", kind="bridge")
    (bridge,) = kernel.link_lookup(ifname="br0")
    kernel.link("set", index=bridge, state="up")
    kernel.addr("add", index=bridge, address="203.0.113.5", mask=24)
    kernel.route("add", dst="192.0.2.0", mask=24, oif=bridge)
    kernel.route("add", dst="198.51.100.0", dst_len=24, oif=bridge)
    kernel.link("set", index=bridge, mtuu=1400)
    addresses, routes = kernel.get_addr(family=2, index=bridge), kernel.get_routes(family=2, table=254)
    print("address", *(f"{each.get_attr('IFA_ADDRESS')}/{each['prefixlen']}" for each in addresses))
    print("routes", *sorted(f"{each.get_attr('RTA_DST')}/{each['dst_len']}" for each in routes))
    print("mtu", kernel.get_links(bridge)[0].get_attr("IFLA_MTU"))
END
)" <<'END'
address 203.0.113.5/24
routes 192.0.2.0/32 198.51.100.0/24 203.0.113.0/24
mtu 1500
END
