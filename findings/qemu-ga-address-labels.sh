#!/bin/bash
# Subject: the guest agent of QEMU 7.2 (Debian 12), `guest-network-get-interfaces`, of a guest whose IPv4 addresses have labels (eth0:0, as
#   ifupdown and DHCP clients give them).
# A good guess: its answer has one entry for each interface, with the MAC and all addresses of it, as its schema says (`name` is the
#   interface's name); a label is no more than a word for `ip addr show`.
# Seen: a label is an interface of its own, and the addresses are taken from the real one. Its MAC is looked up by the label: what stands
#   behind a colon is cut off, another word has no MAC, and a label that is the name of another NIC gets the address listed there, with that
#   NIC's MAC. IPv6 addresses have no labels and stay. Whoever joins the agent's answer with the guest's NICs by name or MAC misses them.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian qemu-guest-agent=1:7.2+dfsg-7+deb12u18+b3 libudev1=252.39-1~deb12u2 liburing2=2.3-3
export libraries root work
cat >"$work/ask" <<'END'
import json, socket, sys, time
for _ in range(500):
    try:
        agent = socket.socket(socket.AF_UNIX)
        agent.connect(sys.argv[1])
        break
    except OSError:
        time.sleep(0.02)
agent.sendall(b'{"execute":"guest-network-get-interfaces"}\n')
for nic in sorted(json.loads(agent.makefile().readline())["return"], key=lambda nic: nic["name"]):
    addresses = [address["ip-address"] for address in nic.get("ip-addresses", [])]
    if addresses and nic["name"] != "lo":
        print(nic["name"], nic.get("hardware-address", "(no MAC)"), " ".join(sorted(addresses)))
END
# shellcheck disable=SC2016 # The inner shell expands it.
seen "$(unshare --user --map-root-user --net bash -euc '
    for nic in "eth0 52:54:00:00:00:0a" "eth1 52:54:00:00:00:0b"; do
        ip link add name "${nic% *}" address "${nic#* }" type veth peer name "peer${nic:3:1}"
        ip link set "${nic% *}" addrgenmode none up
        ip link set "peer${nic:3:1}" addrgenmode none
    done
    ip address add 203.0.113.5/32 dev eth0
    ip address add 203.0.113.6/32 dev eth0 label eth0:0
    ip address add 203.0.113.7/32 dev eth0 label web
    ip address add 203.0.113.8/32 dev eth0 label eth1
    ip address add 2001:db8::5/64 dev eth0 nodad
    ip -j address show dev eth0 | python3 -c "import json, sys
print(\"ip: eth0\", *(address[\"local\"] for address in json.load(sys.stdin)[0][\"addr_info\"]))"
    LD_LIBRARY_PATH=$libraries "$root/usr/sbin/qemu-ga" -m unix-listen -p "$work/socket" -t "$work" -f "$work/pid" &
    trap "kill $!" EXIT
    python3 "$work/ask" "$work/socket"' 2>&1)" <<'END'
ip: eth0 203.0.113.5 203.0.113.6 203.0.113.7 203.0.113.8 2001:db8::5
eth0 52:54:00:00:00:0a 2001:db8::5 203.0.113.5
eth0:0 52:54:00:00:00:0a 203.0.113.6
eth1 52:54:00:00:00:0b 203.0.113.8
web (no MAC) 203.0.113.7
END
