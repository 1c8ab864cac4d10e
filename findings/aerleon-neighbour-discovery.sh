#!/bin/bash
# Subject: aerleon 1.18.0, which makes rules for nftables of a policy, and the kernel's conntrack.
# A good guess: a term that accepts the protocols icmp and icmpv6 lets ping and neighbour discovery through, both families alike.
# Seen: IPv4 works, IPv6 is dead. The rule gets `ct state new` with it, and to conntrack a neighbour solicitation is not new but untracked, so
#   that it comes to the chain's policy. ARP never gets there. Without these words the same rules let IPv6 through.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
python aerleon==1.18.0 absl-py==2.5.1 ply==3.11 pyyaml==6.0.2
cat >"$work/policy.pol" <<'END'
header {
  target:: nftables mixed input
}
term control {
  protocol:: icmp icmpv6
  action:: accept
}
END
mkdir "$work/definitions"
python3 - "$work" >"$work/rules.nft" <<'END'
import sys
from aerleon.lib import naming, nftables, policy
with open(sys.argv[1] + "/policy.pol") as text:
    print(nftables.Nftables(policy.ParsePolicy(text.read(), naming.Naming(sys.argv[1] + "/definitions")), 2))
END
node() {
    ip link set lo up
    unshare -n sleep 60 &
    guest=$!
    until [[ $(readlink /proc/$guest/ns/net) != "$(readlink /proc/self/ns/net)" ]]; do sleep 0.1; done
    ip link add node type veth peer name guest netns $guest
    ip address add 203.0.113.1/24 dev node
    ip address add 2001:db8::1/64 dev node nodad
    ip link set node up
    inside="nsenter -n -t $guest"
    $inside ip address add 203.0.113.2/24 dev guest
    $inside ip address add 2001:db8::2/64 dev guest nodad
    $inside ip link set guest up
    for rules in "$work/rules.nft" <(sed 's/ ct state new//' "$work/rules.nft"); do
        nft flush ruleset
        nft -f "$rules"
        nft list ruleset | sed -n 's/^\t\t//; /proto/p'
        for address in 203.0.113.1 2001:db8::1; do
            $inside ping -q -c 1 -W 2 $address >/dev/null && echo "  $address answers" || echo "  $address does not answer"
        done
    done
    kill $guest
}
export -f node
export work
seen "$(unshare -n bash -c node)" <<'END'
ip protocol icmp ct state new accept
meta l4proto ipv6-icmp ct state new accept
  203.0.113.1 answers
  2001:db8::1 does not answer
ip protocol icmp accept
meta l4proto ipv6-icmp accept
  203.0.113.1 answers
  2001:db8::1 answers
END
