#!/bin/bash
# Subject: cloudbase-init 1.1.9, which configures Windows guests from cloud-init's data.
# A good guess: a NIC with an address and a gateway of each family, as the same document gives them to a Linux guest, has both afterwards.
# Seen: one gateway for both. Of `gateway4` and `gateway6` only the second is read, of `routes` the first default route, and each address
#   gets it, whatever its family. Of a config drive's interfaces file, as Proxmox VE writes it, the IPv6 stanza takes the place of the IPv4
#   one, and an address with its length behind a slash is no address. Version 1 gets the gateways right, but a name server that is
#   not in a list is taken apart into letters.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
python cloudbase-init==1.1.9 oslo.config==10.7.0 oslo.context==6.5.0 oslo.i18n==6.9.0 oslo.log==8.3.2 oslo.serialization==5.11.0 oslo.utils==10.2.0 \
    debtcollector==3.1.0 iso8601==2.1.0 netaddr==1.3.0 pyyaml==6.0.4 requests==2.34.2 rfc3986==2.0.0 stevedore==5.10.0 python-dateutil==4.0.0 \
    typing-extensions==4.16.0 urllib3==2.8.0 certifi==2026.10.19.post1 charset-normalizer==3.5.3 idna==3.20 wrapt==2.5.2 pbr==7.1.3 packaging==26.4
seen "$(python3 - <<'END'
from unittest import mock
import yaml
from cloudbaseinit.metadata.services import nocloudservice
from cloudbaseinit.plugins.common import networkconfig
from cloudbaseinit.utils import debiface
MAC = "52:54:00:00:00:01"

# What it would have Windows do, instead of doing it.
def configured(title, details):
    print(title)
    windows = mock.Mock()
    windows.get_network_adapters.return_value = [("wan", MAC)]
    windows.get_network_adapter_name_by_mac_address.return_value = "wan"
    windows.set_static_network_config.side_effect = lambda _, *values: print("   ", *values)
    plugin = networkconfig.NetworkConfigPlugin()
    with mock.patch.object(networkconfig.osutils_factory, "get_os_utils", lambda: windows):
        (plugin._process_network_details if isinstance(details, list) else plugin._process_network_details_v2)(details)

nic = '{match: {macaddress: "%s"}, addresses: [203.0.113.5/24, "2001:db8::5/64"], %s}'
for title, gateways in {
    "version 2, gateway4 and gateway6": 'gateway4: 203.0.113.1, gateway6: "2001:db8::1"',
    "version 2, routes": 'routes: [{to: default, via: 203.0.113.1}, {to: default, via: "2001:db8::1"}]',
}.items():
    document = {"ethernets": {"wan": yaml.safe_load(nic % (MAC, gateways))}}
    configured(title, nocloudservice.NoCloudNetworkConfigV2Parser().parse(document))
configured("version 1", nocloudservice.NoCloudNetworkConfigV1Parser().parse(yaml.safe_load(f"""
config:
- type: physical
  name: wan
  mac_address: "{MAC}"
  subnets:
  - {{type: static, address: 203.0.113.5/24, gateway: 203.0.113.1}}
  - {{type: static6, address: "2001:db8::5/64", gateway: "2001:db8::1"}}
- {{type: nameserver, address: 192.0.2.53}}
""")))
stanza = "auto eth0\niface eth0 inet static\n address 203.0.113.5\n netmask 255.255.255.0\n gateway 203.0.113.1\n"
stanza6 = "iface eth0 inet6 static\n address 2001:db8::5\n netmask 64\n gateway 2001:db8::1\n"
configured("interfaces, both stanzas", debiface.parse(stanza + stanza6))
configured("interfaces, IPv4", debiface.parse(stanza))
configured("interfaces, IPv4 with a slash", debiface.parse(stanza.replace("\n netmask 255.255.255.0", "/24")))
END
)" <<'END'
version 2, gateway4 and gateway6
    203.0.113.5 24 2001:db8::1 []
    2001:db8::5 64 2001:db8::1 []
version 2, routes
    203.0.113.5 24 203.0.113.1 []
    2001:db8::5 64 203.0.113.1 []
version 1
    203.0.113.5 24 203.0.113.1 ['1', '9', '2', '.', '0', '.', '2', '.', '5', '3']
    2001:db8::5 64 2001:db8::1 []
interfaces, both stanzas
    2001:db8::5 64 2001:db8::1 []
interfaces, IPv4
    203.0.113.5 255.255.255.0 203.0.113.1 []
interfaces, IPv4 with a slash
END
