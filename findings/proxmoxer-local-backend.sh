#!/bin/bash
# Subject: proxmoxer 2.3.0 for Python, its backends `https` and `local` (on a node, by pvesh; those by SSH share its code), against a
#   stand-in pvesh and a stand-in API.
# A good guess: the backends differ in the way to the node: what is given and what comes back is the same; a call fails if pvesh fails.
# Seen: pvesh's exit status is not looked at. A call that succeeds with a warning on stderr raises `500 Internal Server Error`; one that fails
#   with its message on stdout returns a dictionary. A list, which `https` sends as PVE wants it, is given to pvesh as Python's text for
#   it, brackets and quotes included.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
python proxmoxer==2.3.0 requests==2.32.5 urllib3==2.5.0 certifi==2025.8.3 idna==3.10 charset-normalizer==3.4.3
mkdir "$work/bin"
cat >"$work/bin/pvesh" <<'END'
#!/bin/bash
case $2 in
/nodes) echo '[]' ;;
/cluster/status) echo 'a warning' >&2; echo '[]' ;;
/cluster/tasks) echo 'it failed'; exit 2 ;;
*) shift 2; printf '["%s"]\n' "$*" ;;
esac
END
chmod +x "$work/bin/pvesh"
openssl req -x509 -newkey rsa:2048 -nodes -keyout "$work/key" -out "$work/certificate" -days 2 -subj /CN=localhost 2>/dev/null
seen "$(PATH=$work/bin:$PATH python3 - "$work" 2>&1 <<'END'
import http.server, json, ssl, sys, threading, urllib.parse, warnings
from proxmoxer import ProxmoxAPI

warnings.simplefilter("ignore")


class Node(http.server.BaseHTTPRequestHandler):
    def do_PUT(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        answer = json.dumps({"data": [urllib.parse.unquote(body)]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


server = http.server.HTTPServer(("127.0.0.1", 0), Node)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1] + "/certificate", sys.argv[1] + "/key")
server.socket = context.wrap_socket(server.socket, server_side=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
https = ProxmoxAPI("127.0.0.1", port=server.server_port, user="root@pam", token_name="name", token_value="value", verify_ssl=False)
local = ProxmoxAPI(backend="local")
for name, api in (("https", https), ("local", local)):
    print(name + ":", api.nodes("a").qemu(100).config.put(delete=["net1", "net2"]))
for path, status in (("nodes", "exit status 0"), ("cluster/status", "exit status 0, warning"), ("cluster/tasks", "exit status 2")):
    try:
        print(f"local, {status}: returns", local(path).get())
    except Exception as error:
        print(f"local, {status}: raises", error)
END
)" <<'END'
https: ['delete=net1&delete=net2']
local: ["-delete ['net1', 'net2'] --output-format json"]
local, exit status 0: returns []
local, exit status 0, warning: raises 500 Internal Server Error: []
local, exit status 2: returns {'errors': 'it failed\n'}
END
