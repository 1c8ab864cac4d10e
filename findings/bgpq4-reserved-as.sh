#!/bin/bash
# Subject: bgpq4 1.9 (Debian 12), prefix lists of an AS, asked of a registry that has a route for each.
# A good guess: where it cannot ask, it fails; and an empty list is an empty list in each of its formats.
# Seen: without `-p` it takes no private or documentation AS: `Invalid AS number`, but a list, empty, with exit status
#   0. Of an AS without routes the format for BIRD is nothing at all, not even the name, JSON has an empty array, and
#   Cisco's and Huawei's deny 0.0.0.0/0.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
debian bgpq4=1.9-1
seen "$(python3 - "$root/usr/bin/bgpq4" <<'END'
import socketserver, subprocess, sys, threading

class Registry(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            query = line.decode().strip().lower()
            if query == "!s-lc":
                self.wfile.write(b"A5\nTEST\nC\n")
            elif query == "!gas64500":
                self.wfile.write(b"A15\n203.0.113.0/24\nC\n")
            elif query.startswith("!g"):
                self.wfile.write(b"D\n")
            elif query.startswith(("!n", "!stest")):
                self.wfile.write(b"C\n")
            elif query == "!q":
                return

socketserver.ThreadingTCPServer.daemon_threads = True
with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Registry) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"127.0.0.1:{server.server_address[1]}"
    for options in ("-p AS64500", "AS64500", "-p AS64501", "-p -b AS64500", "-p -b AS64501", "-p -j AS64501",
            "-p -U AS64501"):
        run = subprocess.run([sys.argv[1], "-h", address, *options.split()], capture_output=True, text=True)
        lines = [line.strip() for line in (run.stdout + run.stderr).splitlines()]
        print(f"{options}: {run.returncode}", *lines, sep="\n  ")
    server.shutdown()
END
)" <<'END'
-p AS64500: 0
  no ip prefix-list NN
  ip prefix-list NN permit 203.0.113.0/24
AS64500: 0
  no ip prefix-list NN
  ! generated prefix-list NN is empty
  ip prefix-list NN deny 0.0.0.0/0
  ERROR:Invalid AS number: 64500
-p AS64501: 0
  no ip prefix-list NN
  ! generated prefix-list NN is empty
  ip prefix-list NN deny 0.0.0.0/0
-p -b AS64500: 0
  NN = [
  203.0.113.0/24
  ];
-p -b AS64501: 0
-p -j AS64501: 0
  { "NN": [
  ] }
-p -U AS64501: 0
  undo ip ip-prefix NN
  ip ip-prefix NN deny 0.0.0.0/0
END
