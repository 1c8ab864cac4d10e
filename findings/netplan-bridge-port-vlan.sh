#!/bin/bash
# Subject: netplan.io 0.106 (Debian 12), a bridge port that has a path cost and a VLAN, rendered for systemd-networkd.
# A good guess: the order of the sections in the generated file does not matter, since netplan knows which key belongs
#   where.
# Seen: as soon as the port has a `path-cost` (or a `port-priority`), the section [Bridge] is written in the middle of
#   [Network], and `VLAN=` behind it: networkd ignores the line there, and the VLAN stays down. Exit status 0, no
#   warning.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian netplan.io=0.106-2+deb12u1 libnetplan0=0.106-2+deb12u1 libyaml-0-2=0.2.5-1
port() {
    rm -rf "$work/tree"
    mkdir -p "$work/tree/etc/netplan"
    cat >"$work/tree/etc/netplan/network.yaml" <<END
network:
  version: 2
  ethernets:
    eno1: {}
  bridges:
    vmbr0: {interfaces: [eno1], parameters: {stp: false$1}}
  vlans:
    eno1.10: {id: 10, link: eno1, addresses: [203.0.113.5/24]}
END
    chmod 600 "$work/tree/etc/netplan/network.yaml"
    unpacked "$root/usr/libexec/netplan/generate" --root-dir "$work/tree" || echo "refused"
    sed -n '/^\[Network\]/,$p' "$work/tree/run/systemd/network/10-netplan-eno1.network"
}
seen "without:
$(port "")
with:
$(port ', path-cost: {eno1: 5}')" <<'END'
without:
[Network]
LinkLocalAddressing=no
Bridge=vmbr0
VLAN=eno1.10
with:
[Network]
LinkLocalAddressing=no
Bridge=vmbr0

[Bridge]
Cost=5
VLAN=eno1.10
END
