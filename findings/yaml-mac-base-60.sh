#!/bin/bash
# Subject: a MAC without quotes in a network document, read by netplan 0.106, cloud-init 22.4.2 (Debian 12), and parsers of Python and JavaScript.
# A good guess: a MAC has colons, hence is text; or the readers agree on what it is.
# Seen: YAML 1.1 has numbers in base 60, and a MAC without letters, whose pairs are below 60 and which does not begin with 0, is one:
#   52:54:00:12:34:56 is 41135085296. With QEMU's prefix one MAC in eighty is such a number, with Proxmox VE's (BC:24:11) none. netplan takes it
#   as the MAC it is; cloud-init reads the number and writes it for netplan, which refuses that; PyYAML and js-yaml 3 read the number, js-yaml
#   4, `yaml` and ruamel.yaml the text.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian netplan.io=0.106-2+deb12u1 libnetplan0=0.106-2+deb12u1 libyaml-0-2=0.2.5-1 cloud-init=22.4.2-1+deb12u4
python PyYAML==6.0.2 jinja2==3.1.6 MarkupSafe==3.0.2 configobj==5.0.9 jsonpatch==1.33 jsonpointer==3.0.0 ruamel.yaml==0.18.6 \
    requests==2.32.3 urllib3==2.3.0 idna==3.10 certifi==2025.1.31 charset-normalizer==3.4.1
export PYTHONPATH=$PYTHONPATH:$root/usr/lib/python3/dist-packages
npm js-yaml-3@npm:js-yaml@3.14.1 js-yaml@4.1.0 yaml@2.6.1
cat >"$work/write.py" <<'END'
import sys
from cloudinit import safeyaml
from cloudinit.net import netplan
from cloudinit.net.network_state import parse_net_config_data

state = parse_net_config_data(safeyaml.load(open(sys.argv[1]).read())["network"])
netplan.Renderer({"netplan_path": "etc/netplan/network.yaml", "postcmds": False}).render_network_state(state, target=sys.argv[2])
END
# netplan TREE: what it makes of the document there
netplan() {
    chmod 600 "$1/etc/netplan/network.yaml"
    if unpacked "$root/usr/libexec/netplan/generate" --root-dir "$1" 2>"$work/errors"; then
        echo "netplan: $(grep -rh '^PermanentMACAddress=\|^MACAddress=' "$1/run/systemd/network" | sort -u | xargs)"
    else
        echo "netplan: $(grep -o 'Error.*' "$work/errors" | head -1)"
    fi
}
document() {
    rm -rf "$work/given" "$work/rendered"
    mkdir -p "$work/given/etc/netplan" "$work/rendered/etc/netplan"
    printf 'network:\n  version: 2\n  ethernets:\n    eth0:\n      match: {macaddress: %s}\n      set-name: eth0\n' "$1" \
        >"$work/given/etc/netplan/network.yaml"
    echo "$1"
    echo "  given to $(netplan "$work/given")"
    python3 "$work/write.py" "$work/given/etc/netplan/network.yaml" "$work/rendered"
    echo "  written by cloud-init: $(grep -h macaddress "$work/rendered/etc/netplan/network.yaml" | xargs); given to $(netplan "$work/rendered")"
}
cat >"$work/parse.mjs" <<'END'
import three from "js-yaml-3";
import four from "js-yaml";
import yaml from "yaml";

const text = "mac: 52:54:00:12:34:56";
const old = text => yaml.parse(text, { version: "1.1" });
for (const [name, parse] of Object.entries({ "js-yaml 3": three.safeLoad, "js-yaml 4": four.load, yaml: yaml.parse, "yaml, version 1.1": old })) {
  console.log(`${name}: ${JSON.stringify(parse(text))}`);
}
END
seen "$(for mac in 52:54:00:12:34:5a 52:54:00:12:34:56 '"52:54:00:12:34:56"'; do document "$mac"; done
python3 - <<'END'
import ruamel.yaml
import yaml

text = "mac: 52:54:00:12:34:56"
print("PyYAML:", yaml.safe_load(text))
print("ruamel.yaml:", ruamel.yaml.YAML(typ="safe", pure=True).load(text))
END
node "$work/parse.mjs")" <<'END'
52:54:00:12:34:5a
  given to netplan: PermanentMACAddress=52:54:00:12:34:5a
  written by cloud-init: macaddress: 52:54:00:12:34:5a; given to netplan: PermanentMACAddress=52:54:00:12:34:5a
52:54:00:12:34:56
  given to netplan: PermanentMACAddress=52:54:00:12:34:56
  written by cloud-init: macaddress: 41135085296; given to netplan: Error in network definition: Invalid MAC address '41135085296', must be XX:XX:XX:XX:XX:XX or XX:XX:XX:XX:XX:XX:XX:XX:XX:XX:XX:XX:XX:XX:XX:XX:XX:XX:XX:XX
"52:54:00:12:34:56"
  given to netplan: PermanentMACAddress=52:54:00:12:34:56
  written by cloud-init: macaddress: 52:54:00:12:34:56; given to netplan: PermanentMACAddress=52:54:00:12:34:56
PyYAML: {'mac': 41135085296}
ruamel.yaml: {'mac': '52:54:00:12:34:56'}
js-yaml 3: {"mac":41135085296}
js-yaml 4: {"mac":"52:54:00:12:34:56"}
yaml: {"mac":"52:54:00:12:34:56"}
yaml, version 1.1: {"mac":41135085296}
END
