#!/bin/bash
# Subject: the kernel's map for longest prefixes (BPF_MAP_TYPE_LPM_TRIE), by bpftool 7.1.0 (Debian 12). Needs root, for BPF.
# A good guess: a prefix is stored masked, as in a routing table; a look-up with a length below 32 asks for that prefix, and its answer names
#   the entry that was found; a dump is in the order of the addresses, or in that of a routing table.
# Seen: host bits stay in the key and do not count: .9/24 takes the place of .5/24, and .77/24 deletes it. A look-up of a prefix that is not
#   there finds the next one around it, and bpftool prints the key that was asked, so /25 seems to be there with the /24's value; a
#   shorter one than all finds nothing. A dump has each prefix behind those within it.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian bpftool=7.1.0+6.1.192-3
export root
# shellcheck disable=SC2016 # The inner shell expands it.
seen "$(unshare --mount bash -euc '
    mount -t bpf none /sys/fs/bpf
    map="pinned /sys/fs/bpf/prefixes"
    tool() { "$root/usr/sbin/bpftool" "$@"; }
    key() { local length=${1#*/} address=${1%/*}; echo "key $length 0 0 0 ${address//./ }"; }
    put() { tool map update $map $(key "$1") value "$2" 0 0 0; echo "put $1 = $2"; }
    dumped() { echo "dump:"; tool -j map dump $map | named; }
    named() {
        python3 -c "import json, sys
found = json.load(sys.stdin)
for entry in found if isinstance(found, list) else [found]:
    if entry:
        key = [int(byte, 16) for byte in entry[\"key\"]]
        print(\"  \" + \".\".join(map(str, key[4:])) + \"/\" + str(key[0]), \"=\", int(entry[\"value\"][0], 16))
    else:
        print(\"  nothing\")"
    }
    look_up() { echo "look up $1:"; { tool -j map lookup $map $(key "$1") || true; } | named; }
    tool map create /sys/fs/bpf/prefixes type lpm_trie key 8 value 4 entries 10 name prefixes flags 1
    put 203.0.113.5/24 1
    put 203.0.113.128/25 2
    put 10.0.0.0/8 3
    put 0.0.0.0/0 4
    dumped
    put 203.0.113.9/24 5
    dumped
    look_up 203.0.113.0/25
    look_up 203.0.113.0/24
    tool map delete $map $(key 203.0.113.77/24)
    echo "delete 203.0.113.77/24"
    tool map delete $map $(key 0.0.0.0/0)
    echo "delete 0.0.0.0/0"
    dumped
    look_up 203.0.113.0/25' 2>&1)" <<'END'
put 203.0.113.5/24 = 1
put 203.0.113.128/25 = 2
put 10.0.0.0/8 = 3
put 0.0.0.0/0 = 4
dump:
  10.0.0.0/8 = 3
  203.0.113.128/25 = 2
  203.0.113.5/24 = 1
  0.0.0.0/0 = 4
put 203.0.113.9/24 = 5
dump:
  10.0.0.0/8 = 3
  203.0.113.128/25 = 2
  203.0.113.9/24 = 5
  0.0.0.0/0 = 4
look up 203.0.113.0/25:
  203.0.113.0/25 = 5
look up 203.0.113.0/24:
  203.0.113.0/24 = 5
delete 203.0.113.77/24
delete 0.0.0.0/0
dump:
  10.0.0.0/8 = 3
  203.0.113.128/25 = 2
look up 203.0.113.0/25:
  nothing
END
