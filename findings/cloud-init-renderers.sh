#!/bin/bash
# Subject: cloud-init 22.4.2 (Debian 12), one network document of version 2 as each of its renderers writes it (`devel
#   net-convert`).
# A good guess: what a renderer cannot write is refused or named, for the exit status is that of a tool which converts.
# Seen: all end with 0. `on-link` is lost in three of four, so the guest with a /32 has no default route. The one for
#   systemd-networkd writes a .network for a VLAN but no .netdev and no `VLAN=`, so nothing makes the interface; the one
#   for NetworkManager puts an IPv6 route into [ipv4]; the one for ifupdown writes a Python dictionary as an option
#   `dns`. Only netplan gets the document as it is.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian cloud-init=22.4.2-1+deb12u4
python PyYAML==6.0.2 jinja2==3.1.6 MarkupSafe==3.0.2 configobj==5.0.9 jsonpatch==1.33 jsonpointer==3.0.0 \
    requests==2.32.3 urllib3==2.3.0 idna==3.10 certifi==2025.1.31 charset-normalizer==3.4.1
export PYTHONPATH=$PYTHONPATH:$root/usr/lib/python3/dist-packages
cat >"$work/network.yaml" <<'END'
version: 2
ethernets:
  eth0:
    match: {macaddress: "52:54:00:00:00:01"}
    set-name: eth0
    addresses: [203.0.113.5/32, "2001:db8::5/64"]
    nameservers: {addresses: [192.0.2.53]}
    routes:
      - {to: 0.0.0.0/0, via: 198.51.100.1, on-link: true}
      - {to: "2001:db8:5::/48", via: "2001:db8::9"}
vlans:
  eth0.10: {id: 10, link: eth0, addresses: [192.0.2.5/24]}
END
# renderer NAME PATTERN: the lines that match, and the files
renderer() {
    local status=0
    python3 -c 'import sys
from cloudinit.cmd.main import main
sys.argv[0] = "cloud-init"
main()' devel net-convert --network-data "$work/network.yaml" --kind yaml --directory "$work/$1" --distro debian \
        --mac eth0,52:54:00:00:00:01 --output-kind "$1" >"$work/said" 2>&1 || status=$?
    echo "$1: $status"
    (cd "$work/$1" && find . -type f -not -path '*udev*' | sort | while read -r file; do
        echo "${file##*/}"
        grep -E "$2" "$file" | sed 's/^ */  /' || true
    done)
}
seen "$(renderer eni '198\.51|on-?link|dns ')
$(renderer networkd '^\[|198\.51|On-?[Ll]ink|VLAN')
$(renderer network-manager '^\[ip|route|on-?link')
$(renderer netplan '198\.51|on-link|id:')" <<'END'
eni: 0
50-cloud-init
  dns {'nameservers': ['192.0.2.53'], 'search': []}
  post-up route add default gw 198.51.100.1 || true
  pre-down route del default gw 198.51.100.1 || true
networkd: 0
10-cloud-init-eth0.10.network
  [Address]
  [Match]
  [Network]
10-cloud-init-eth0.network
  [Address]
  [Address]
  [Match]
  [Network]
  [Route]
  Gateway=198.51.100.1
  [Route]
network-manager: 0
cloud-init-eth0.10.nmconnection
  [ipv4]
cloud-init-eth0.nmconnection
  [ipv4]
  route1=0.0.0.0/0,198.51.100.1
  route2=2001:db8:5::/48,2001:db8::9
  [ipv6]
netplan: 0
50-cloud-init.yaml
  -   on-link: true
  via: 198.51.100.1
  id: 10
END
