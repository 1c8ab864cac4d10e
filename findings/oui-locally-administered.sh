#!/bin/bash
# Subject: the IEEE's list of OUIs, as in Debian's ieee-data 20220827.1.
# A good guess: no vendor's prefix has the bit 02 set in its first octet, since that bit says `locally administered`: a MAC that is in
#   the list is no made-up one, and a random 02:... cannot meet a vendor's card.
# Seen: eighteen prefixes of vendors have it (3Com's 02:60:8c, Olivetti's 02:aa:3c, DEC's aa:00:00 to aa:00:04), from before the bit had
#   its meaning. Whoever makes MACs up as 02:... or aa:... can land in one of them.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian ieee-data=20220827.1
seen "$(grep -oE '^[0-9A-F][2367ABEF]-[0-9A-F]{2}-[0-9A-F]{2}' "$root/usr/share/ieee-data/oui.txt" | sort -u | paste -sd ' ')" <<'END'
02-07-01 02-1C-7C 02-60-86 02-60-8C 02-70-01 02-70-B0 02-70-B3 02-9D-8E 02-AA-3C 02-BB-01 02-C0-8C 02-CF-1C 02-E6-D3 AA-00-00 AA-00-01 AA-00-02 AA-00-03 AA-00-04
END
