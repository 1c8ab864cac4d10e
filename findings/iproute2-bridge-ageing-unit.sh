#!/bin/bash
# Subject: ip-link of iproute2 6.1.0 (Debian 12), `type bridge ageing_time`, and the kernel.
# A good guess: the manual says that it is `the number of seconds a MAC address will be kept`, so 300 keeps one for five minutes.
# Seen: it is hundredths of seconds, and so are forward_delay, hello_time and max_age in its output. With 300 a MAC is forgotten after three
#   seconds; the default of five minutes is shown as 30000. Of a VXLAN `ageing` is in seconds.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian iproute2=6.1.0-3
manual=$(zcat "$root/usr/share/man/man8/ip-link.8.gz" | sed -n '/^.BI ageing_time " AGEING_TIME "$/{n;N;s/\n/ /p}' | grep -o 'the number of seconds a MAC address will be kept')
# shellcheck disable=SC2016 # The inner shell expands it.
kept=$(unshare --user --map-root-user --net bash -euc '
    ip link add name br0 type bridge ageing_time 300 forward_delay 0
    ip link add name default0 type bridge
    ip link add name port0 type veth peer name host0
    ip link set dev port0 master br0 up
    ip link set dev host0 up
    ip link set dev br0 up
    echo "default: $(ip -d -j link show dev default0 | grep -o "\"ageing_time\":[0-9]*")"
    sleep 1
    python3 -c "
import socket
sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
sender.bind((\"host0\", 0))
sender.send(bytes.fromhex(\"ffffffffffff\" \"0200000000aa\" \"88b5\") + bytes(46))"
    known() { bridge fdb show br br0 | grep -c 02:00:00:00:00:aa || true; }
    sleep 0.5
    echo "after half a second: $(known)"
    sleep 14
    echo "after fifteen seconds: $(known)"')
seen "$manual
$kept" <<'END'
the number of seconds a MAC address will be kept
default: "ageing_time":30000
after half a second: 1
after fifteen seconds: 0
END
