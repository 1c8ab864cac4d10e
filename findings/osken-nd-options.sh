#!/bin/bash
# Subject: os-ken 4.2.2 for Python (OpenStack's continuation of Ryu), the options of neighbour discovery.
# A good guess: a router advertisement is a list of options, as its class says (`options`), in whatever order they come (RFC 4861 section 9);
#   a solicitation with a nonce (RFC 7527) still has its link-layer address.
# Seen: the option with the link-layer address takes all that stands behind it as `data`: with the address first, as routers of some makers
#   send it, the prefix is no option, with the prefix first, as radvd sends it, both are there. A solicitation has one option only, so with the
#   nonce in front there is no address but 16 bytes; written again the packet has the right bytes, so that no round trip shows it.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
python os-ken==4.2.2 netaddr==1.3.0 oslo.config==10.7.0 oslo.i18n==6.9.0 rfc3986==2.0.0 stevedore==5.10.0 pbr==7.1.3 packaging==26.4 \
    PyYAML==6.0.4 setuptools==84.2.1
seen "$(python3 - <<'END' 2>&1
from os_ken.lib.packet import icmpv6

mac = bytes.fromhex("0101525400000005")
nonce = bytes.fromhex("0e01") + b"random"
prefix = bytes.fromhex("030440c0000151800000384000000000" "20010db8000000000000000000000000")
advertisement = bytes.fromhex("8600000040000708" "0000000000000000")
solicitation = bytes.fromhex("8700000000000000" "20010db8000000000000000000000005")


def option(found):
    if isinstance(found, bytes):
        return f"{len(found)} bytes"
    data = getattr(found, "data", None)
    return type(found).__name__ + (f" with {len(data)} bytes of data" if data else "")


for name, message in (("prefix, mac", advertisement + prefix + mac), ("mac, prefix", advertisement + mac + prefix),
                      ("mac", solicitation + mac), ("mac, nonce", solicitation + mac + nonce), ("nonce, mac", solicitation + nonce + mac)):
    read, _, _ = icmpv6.icmpv6.parser(message)
    options = getattr(read.data, "options", None) or [read.data.option]
    print(f"{type(read.data).__name__} of {name}: {', '.join(map(option, options))}")
END
)" <<'END'
nd_router_advert of prefix, mac: nd_option_pi, nd_option_sla
nd_router_advert of mac, prefix: nd_option_sla with 32 bytes of data
nd_neighbor of mac: nd_option_sla
nd_neighbor of mac, nonce: nd_option_sla with 8 bytes of data
nd_neighbor of nonce, mac: 16 bytes
END
