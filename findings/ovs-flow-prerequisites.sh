#!/bin/bash
# Subject: ovs-ofctl of Open vSwitch 3.1.0 (Debian 12).
# A good guess: a flow that names an IPv4 or ARP source without saying `ip` or `arp` is refused, or the protocol is implied.
# Seen: the field is left out and the flow is accepted with exit status 0. `drop what has this source` becomes `drop everything`
#   (a line at level INFO on stderr is all that is said); with `ipv6_src` that line does not even name the field. The target of
#   neighbour discovery needs `icmp_type=135` besides `icmp6`, else the flow means all of ICMPv6.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian openvswitch-common=3.1.0-2+deb12u1 libunbound8=1.17.1-2+deb12u4 libxdp1=1.3.1-1 libbpf1=1:1.1.2-0+deb12u1
flows=$(for flow in arp,arp_spa=203.0.113.5 arp_spa=203.0.113.5 nw_src=203.0.113.5 ipv6_src=2001:db8::5 \
    icmp6,nd_target=2001:db8::5 icmp6,icmp_type=135,nd_target=2001:db8::5; do
    accepted=$(unpacked "$root/usr/bin/ovs-ofctl" parse-flow "$flow,actions=drop" 2>/dev/null) || accepted="ADD refused"
    echo "$flow: ${accepted##*ADD }"
done)
seen "$flows" <<'END'
arp,arp_spa=203.0.113.5: arp,arp_spa=203.0.113.5 actions=drop
arp_spa=203.0.113.5: actions=drop
nw_src=203.0.113.5: actions=drop
ipv6_src=2001:db8::5: actions=drop
icmp6,nd_target=2001:db8::5: icmp6 actions=drop
icmp6,icmp_type=135,nd_target=2001:db8::5: icmp6,icmp_type=135,nd_target=2001:db8::5 actions=drop
END
