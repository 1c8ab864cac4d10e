#!/bin/bash
# Subject: cloud-init 22.4.2 (Debian 12), /etc/network/interfaces as its input: the file of a config drive, or of `devel net-convert --kind eni`.
# A good guess: it reads what interfaces(5) describes and what its own renderer writes: a stanza for each family, MTU, routes, a line that
#   goes on behind a backslash; what it cannot take over it refuses.
# Seen: a second stanza of an interface, hence any guest with both families, is the one thing that is refused. MTU, the far end, routes in
#   `up` and a VLAN's interface below are left out without a word; the backslash becomes a name server and the line behind it is
#   lost; `dns_nameservers`, the spelling of Proxmox VE, is no name server at all.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian cloud-init=22.4.2-1+deb12u4
python PyYAML==6.0.2 jinja2==3.1.6 MarkupSafe==3.0.2 configobj==5.0.9 jsonpatch==1.33 jsonpointer==3.0.0 \
    requests==2.32.3 urllib3==2.3.0 idna==3.10 certifi==2025.1.31 charset-normalizer==3.4.1
export PYTHONPATH=$PYTHONPATH:$root/usr/lib/python3/dist-packages
seen "$(python3 - <<'END'
import json
from cloudinit.net import eni

V4 = "iface eth0 inet static\n address 203.0.113.5/32\n gateway 198.51.100.1\n"
V6 = "iface eth0 inet6 static\n address 2001:db8::5/64\n gateway fe80::1\n"
for title, text in (
        ("IPv4", V4), ("IPv6", V6), ("both", V4 + V6), ("two of IPv4", V4 + V4.replace("113.5", "113.6")),
        ("MTU, far end, route", V4 + " mtu 1400\n pointopoint 198.51.100.1\n up ip route add 192.0.2.0/24 via 198.51.100.1\n"),
        ("VLAN", V4.replace("eth0", "eth0.10") + " vlan-raw-device eth0\n"),
        ("dns-nameservers", V4 + " dns-nameservers 192.0.2.53 192.0.2.54\n"),
        ("the same on two lines", V4 + " dns-nameservers 192.0.2.53 \\\n  192.0.2.54\n"),
        ("dns_nameservers", V4 + " dns_nameservers 192.0.2.53\n")):
    try:
        for nic in eni.convert_eni_data(text)["config"]:
            for subnet in nic.pop("subnets"):
                subnet = {key: value for key, value in subnet.items() if key not in ("_orig_eni_name", "control")}
                print(f"{title}: {json.dumps(nic)} {json.dumps(subnet)}")
    except eni.ParserError as error:
        print(f"{title}: {error}")
END
)" <<'END'
IPv4: {"type": "physical", "name": "eth0"} {"type": "static", "address": "203.0.113.5/32", "gateway": "198.51.100.1"}
IPv6: {"type": "physical", "name": "eth0"} {"type": "static", "address": "2001:db8::5/64", "gateway": "fe80::1"}
both: Interface eth0 can only be defined once. Re-defined in 'None'.
two of IPv4: Interface eth0 can only be defined once. Re-defined in 'None'.
MTU, far end, route: {"type": "physical", "name": "eth0"} {"type": "static", "address": "203.0.113.5/32", "gateway": "198.51.100.1"}
VLAN: {"type": "physical", "name": "eth0.10"} {"type": "static", "address": "203.0.113.5/32", "gateway": "198.51.100.1"}
dns-nameservers: {"type": "physical", "name": "eth0"} {"type": "static", "address": "203.0.113.5/32", "gateway": "198.51.100.1", "dns_nameservers": ["192.0.2.53", "192.0.2.54"]}
the same on two lines: {"type": "physical", "name": "eth0"} {"type": "static", "address": "203.0.113.5/32", "gateway": "198.51.100.1", "dns_nameservers": ["192.0.2.53", "\\"]}
dns_nameservers: {"type": "physical", "name": "eth0"} {"type": "static", "address": "203.0.113.5/32", "gateway": "198.51.100.1"}
END
