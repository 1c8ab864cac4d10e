#!/bin/bash
# Subject: the kernel's argument `ip=`, as read by ipconfig of klibc 2.0.12 (initramfs-tools of Debian 12), nm-initrd-generator of
#   NetworkManager 1.42.4 and systemd-network-generator 252.39 (dracut has one of these two).
# A good guess: what the kernel documents for `ip=` (nfsroot.rst: client, NFS server, gateway, netmask, name, device, autoconf, two name
#   servers, a time server; a missing netmask is that of the class) means the same to all; a netmask that is given is taken.
# Seen: a /32 with a gateway outside, as hosters give it, is a /24 to klibc, which takes 255.255.255.255 for `not given`. Without a netmask
#   10.0.0.5 is a /8 to two and a /32 to the third. The NFS server is to systemd the peer of the address, to NetworkManager a peer to be left
#   out. With the time server systemd reads nothing at all and ends with 1, and so without a word behind the device.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian klibc-utils=2.0.12-1 libklibc=2.0.12-1 network-manager=1.42.4-1+deb12u1 systemd=252.39-1~deb12u2 libsystemd-shared=252.39-1~deb12u2 \
    libnm0=1.42.4-1+deb12u1
mkdir -p "$root/run"
export root libraries
read_all() {
    echo "ip=$1"
    # shellcheck disable=SC2016 # The inner shell expands it.
    unshare --user --map-root-user --net bash -euc '
        ip link add name eth0 type veth peer name peer
        ip link set peer up
        chroot "$root" /usr/lib/klibc/bin/ipconfig -t 1 -c none -d "$1" >/dev/null 2>&1 || true
        ip -j address show dev eth0 | python3 -c "import json, sys
print(\"  klibc:         \", *(\"{local}/{prefixlen}\".format(**address) for address in json.load(sys.stdin)[0][\"addr_info\"] if address[\"family\"] == \"inet\"), end=\" \")"
        ip route show default | sed "s/ dev.*//" | grep . || echo "no default route"' bash "$1"
    rm -rf "${work:?}/nm" "$work/networkd"
    mkdir "$work/nm" "$work/networkd"
    unpacked "$root/usr/lib/NetworkManager/nm-initrd-generator" -c "$work/nm" -i "$work/nm/d" -r "$work/nm/r" -- "ip=$1" 2>/dev/null
    echo "  NetworkManager: $(grep -rhE '^(address1|method=auto)' "$work/nm" | paste -sd ' ')"
    local status=0
    LD_LIBRARY_PATH=$libraries/systemd:$libraries "$root/lib/systemd/systemd-network-generator" --root="$work/networkd" -- "ip=$1" 2>/dev/null || status=$?
    echo "  systemd:        $(find "$work/networkd" -name '*.network' -exec grep -hE '^(Address|Peer|Gateway|GatewayOnLink)=' {} + | paste -sd ' ') status $status"
}
seen "$(for argument in 203.0.113.5::203.0.113.1:255.255.255.0::eth0:none \
    203.0.113.5::198.51.100.1:255.255.255.255::eth0:none \
    10.0.0.5::10.0.0.1:::eth0:none \
    203.0.113.5:192.0.2.9:203.0.113.1:255.255.255.0::eth0:none \
    203.0.113.5::203.0.113.1:255.255.255.0::eth0:none:192.0.2.53:192.0.2.54:192.0.2.123 \
    203.0.113.5::203.0.113.1:255.255.255.0::eth0; do read_all "$argument"; done)" <<'END'
ip=203.0.113.5::203.0.113.1:255.255.255.0::eth0:none
  klibc:          203.0.113.5/24 default via 203.0.113.1
  NetworkManager: address1=203.0.113.5/24,203.0.113.1
  systemd:        Address=203.0.113.5/24 Gateway=203.0.113.1 status 0
ip=203.0.113.5::198.51.100.1:255.255.255.255::eth0:none
  klibc:          203.0.113.5/24 no default route
  NetworkManager: address1=203.0.113.5/32,198.51.100.1
  systemd:        Address=203.0.113.5/32 Gateway=198.51.100.1 status 0
ip=10.0.0.5::10.0.0.1:::eth0:none
  klibc:          10.0.0.5/8 default via 10.0.0.1
  NetworkManager: address1=10.0.0.5/8,10.0.0.1
  systemd:        Address=10.0.0.5/32 Gateway=10.0.0.1 status 0
ip=203.0.113.5:192.0.2.9:203.0.113.1:255.255.255.0::eth0:none
  klibc:          203.0.113.5/24 default via 203.0.113.1
  NetworkManager: address1=203.0.113.5/24,203.0.113.1
  systemd:        Address=203.0.113.5/24 Peer=192.0.2.9 Gateway=203.0.113.1 status 0
ip=203.0.113.5::203.0.113.1:255.255.255.0::eth0:none:192.0.2.53:192.0.2.54:192.0.2.123
  klibc:          203.0.113.5/24 default via 203.0.113.1
  NetworkManager: address1=203.0.113.5/24,203.0.113.1
  systemd:         status 1
ip=203.0.113.5::203.0.113.1:255.255.255.0::eth0
  klibc:          203.0.113.5/24 default via 203.0.113.1
  NetworkManager: address1=203.0.113.5/24,203.0.113.1 method=auto
  systemd:         status 1
END
