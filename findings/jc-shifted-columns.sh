#!/bin/bash
# Subject: jc 1.26.1 for Python, which makes JSON of commands' output, here of `arp` (net-tools 2.10) and `iptables` (1.8.9).
# A good guess: its fields are the columns of the table, also where a column is empty or has a word more, since each parser promises a
#   strict schema; what it cannot read it refuses.
# Seen: of a permanent neighbour, as `ip neighbour replace ... nud permanent` makes it, the interface is `on`; of a proxy entry the hardware
#   type is `PERM`. A rule without a target that is listed with its number has the protocol as target and the source in `opt`, and so comes
#   from 0.0.0.0/0; without numbers the same rule is right.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian net-tools=2.10-0.1+deb12u2 iptables=1.8.9-2 libxtables12=1.8.9-2 libip4tc2=1.8.9-2 libnftnl11=1.2.4-2 libmnl0=1.0.4-3
python jc==1.26.1 ruamel.yaml==0.19.1 xmltodict==1.0.4 Pygments==2.21.0
export root libraries
# shellcheck disable=SC2016 # The inner shell expands it.
seen "$(unshare --user --map-root-user --net bash -euc '
    ip link add name eth0 type veth peer name peer
    ip link set peer up
    ip address add 203.0.113.1/24 dev eth0
    ip link set eth0 up
    ip neighbour replace 203.0.113.9 lladdr 52:54:00:00:00:09 dev eth0 nud permanent
    ip neighbour add proxy 203.0.113.10 dev eth0
    export LD_LIBRARY_PATH=$libraries XTABLES_LIBDIR=$libraries/xtables
    "$root/usr/sbin/arp" -an | tee /dev/stderr | python3 -m jc --arp
    echo
    "$root/usr/sbin/iptables-nft" -A FORWARD -s 203.0.113.5
    for numbers in "" --line-numbers; do
        "$root/usr/sbin/iptables-nft" -nL FORWARD $numbers | tail -n +2 | sed "s/ *$//" >&2
        "$root/usr/sbin/iptables-nft" -nL FORWARD $numbers | python3 -m jc -r --iptables
        echo
    done' 2>&1)" <<'END'
? (203.0.113.9) at 52:54:00:00:00:09 [ether] PERM on eth0
? (203.0.113.10) at <from_interface> PERM PUB on eth0
[{"name":null,"address":"203.0.113.9","hwtype":"ether","hwaddress":"52:54:00:00:00:09","iface":"on"},{"name":null,"address":"203.0.113.10","hwtype":"PERM","hwaddress":"<from_interface>","iface":"on"}]

target     prot opt source               destination
           0    --  203.0.113.5          0.0.0.0/0
[{"chain":"FORWARD","rules":[{"target":"","prot":"0","opt":"--","source":"203.0.113.5","destination":"0.0.0.0/0"}]}]

num  target     prot opt source               destination
1               0    --  203.0.113.5          0.0.0.0/0
[{"chain":"FORWARD","rules":[{"num":"1","target":"0","prot":"--","opt":"203.0.113.5","source":"0.0.0.0/0"}]}]
END
