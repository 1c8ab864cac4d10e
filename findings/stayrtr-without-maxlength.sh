#!/bin/bash
# Subject: StayRTR 0.5.1 (Debian 12), which serves validated ROAs to routers by RTR.
# A good guess: an entry without `maxLength` has the length of its prefix, as a ROA without it has (RFC 9582); and a prefix with host bits
#   is refused.
# Seen: the other way round. Without maxLength the entry is dropped with a line in the log, so what was to be invalid is not found; the
#   prefix with host bits is masked and served.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian stayrtr=0.5.1-2+b1
cat >"$work/roas.json" <<'END'
{"metadata": {}, "roas": [
  {"prefix": "203.0.113.0/24", "maxLength": 24, "asn": "AS64500", "ta": "x"},
  {"prefix": "192.0.2.5/24", "maxLength": 26, "asn": 64501, "ta": "x"},
  {"prefix": "198.51.100.0/24", "asn": "AS64502", "ta": "x"}]}
END
seen "$(python3 - "$root/usr/bin/stayrtr" "$work/roas.json" <<'END'
import ipaddress, socket, struct, subprocess, sys, time
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
server = subprocess.Popen([sys.argv[1], "-cache", sys.argv[2], "-checktime=false", "-bind", f"127.0.0.1:{port}", "-metrics.addr", ""],
                          stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
try:
    for _ in range(100):
        try:
            connection = socket.create_connection(("127.0.0.1", port), 5)
            break
        except OSError:
            time.sleep(0.1)
    connection.settimeout(10)
    connection.sendall(struct.pack("!BBHI", 1, 2, 0, 8))
    stream, rows = connection.makefile("rb"), []
    while True:
        _, kind, _, length = struct.unpack("!BBHI", stream.read(8))
        body = stream.read(length - 8)
        if kind == 4:
            rows.append(f"{ipaddress.ip_address(body[4:8])}/{body[1]}-{body[2]} AS{struct.unpack('!I', body[8:12])[0]}")
        if kind == 7:
            break
    print("\n".join(sorted(rows)))
finally:
    server.kill()
    server.wait()
END
)" <<'END'
192.0.2.0/24-26 AS64501
203.0.113.0/24-24 AS64500
END
