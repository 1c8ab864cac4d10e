#!/bin/bash
# Subject: the package `ip` of tcllib 1.21 (Debian 12), `ip::contract`.
# A good guess: `.0` at the end is left off (203.0.113.0 becomes 203.0.113), and `ip::normalize` gives the address back.
# Seen: every zero and dot at the end is cut off, zeros of a number, too: 198.51.100.0 becomes 198.51.1 and comes back
#   as 198.51.1.0, 10.0.0.0 becomes 1. The mask is lost; and `ip::equal` compares the masked addresses only: the first
#   half of a prefix equals it.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian tcllib=1.21+dfsg-1 tcl8.6=8.6.13+dfsg-2 libtcl8.6=8.6.13+dfsg-2
export TCL_LIBRARY=$root/usr/share/tcltk/tcl8.6
seen "$(unpacked "$root/usr/bin/tclsh8.6" - "$root/usr/share/tcltk/tcllib1.21" <<'END'
lappend auto_path [lindex $argv end]
package require ip
foreach address {203.0.113.0 198.51.100.0 10.0.0.0 100.64.0.0 203.0.113.0/24} {
    set short [ip::contract $address]
    puts "$address $short [ip::normalize $short]"
}
foreach {one other} {203.0.113.0/24 203.0.113.0/25 203.0.113.0 203.0.113.0/24 203.0.113.5 203.0.113.0/24} {
    puts "$one equals $other: [ip::equal $one $other]"
}
END
)" <<'END'
203.0.113.0 203.0.113 203.0.113.0
198.51.100.0 198.51.1 198.51.1.0
10.0.0.0 1 1.0.0.0
100.64.0.0 100.64 100.64.0.0
203.0.113.0/24 203.0.113 203.0.113.0
203.0.113.0/24 equals 203.0.113.0/25: 1
203.0.113.0 equals 203.0.113.0/24: 1
203.0.113.5 equals 203.0.113.0/24: 0
END
