#!/bin/bash
# Subject: netjsonconfig 1.3.1 for Python, which writes OpenWrt's files of a NetJSON document and reads them back (`backward conversion`).
# A good guess: what it wrote it reads, and the document is the one it was, or writes the same files again.
# Seen: name servers are written into each interface with a fixed address and gathered again without looking for doubles, so the document of
#   a router with two such interfaces is refused by its own schema; so are search domains of two interfaces of any kind. An IPv6 gateway
#   leaves its address for the interface, as `ip6gw`. A bridge br0 comes back as br-br0, and is written as yet another.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
python netjsonconfig==1.3.1 jinja2==3.1.6 MarkupSafe==3.0.2 jsonschema==4.23.0 attrs==25.1.0 referencing==0.36.2 rpds-py==0.22.3 \
    jsonschema-specifications==2024.10.1 typing_extensions==4.12.2
seen "$(python3 - <<'END'
import json
from netjsonconfig import OpenWrt
from netjsonconfig.exceptions import ValidationError


def nic(name, family, address, mask, gateway):
    return {"name": name, "type": "ethernet",
            "addresses": [{"family": family, "proto": "static", "address": address, "mask": mask, "gateway": gateway}]}


def there_and_back(title, document):
    written = OpenWrt(document).render()
    print(title + ":")
    try:
        back = OpenWrt(native=written)
        back.validate()
        print("  back:", json.dumps(back.config))
        print("  writes the same:", back.render() == written)
    except ValidationError as error:
        print("  refused:", str(error).splitlines()[0])


one, two = nic("eth0", "ipv4", "203.0.113.5", 24, "203.0.113.1"), nic("eth1", "ipv6", "2001:db8::5", 64, "fe80::1")
dhcp = [{"name": name, "type": "ethernet", "addresses": [{"family": "ipv4", "proto": "dhcp"}]} for name in ("eth0", "eth1")]
there_and_back("one interface", {"interfaces": [one], "dns_servers": ["192.0.2.53"]})
there_and_back("IPv6", {"interfaces": [two]})
there_and_back("two interfaces", {"interfaces": [one, two], "dns_servers": ["192.0.2.53"]})
there_and_back("two of DHCP", {"interfaces": dhcp, "dns_search": ["example.com"]})
there_and_back("a bridge", {"interfaces": [{"name": "br0", "type": "bridge", "bridge_members": ["eth1"], "addresses": []}]})
END
)" <<'END'
one interface:
  back: {"dns_servers": ["192.0.2.53"], "interfaces": [{"name": "eth0", "type": "ethernet", "addresses": [{"address": "203.0.113.5", "mask": 24, "proto": "static", "family": "ipv4", "gateway": "203.0.113.1"}]}]}
  writes the same: True
IPv6:
  back: {"interfaces": [{"ip6gw": "fe80::1", "name": "eth1", "type": "ethernet", "addresses": [{"address": "2001:db8::5", "mask": 64, "proto": "static", "family": "ipv6"}]}]}
  writes the same: True
two interfaces:
  refused: ValidationError ['192.0.2.53', '192.0.2.53'] has non-unique elements
two of DHCP:
  refused: ValidationError ['example.com', 'example.com'] has non-unique elements
a bridge:
  back: {"interfaces": [{"name": "br-br0", "type": "bridge", "network": "br0", "bridge_members": ["eth1"]}]}
  writes the same: False
END
