#!/bin/bash
# Subject: rpsl-parser 0.1.3 for Python (Rust inside), which reads objects of routing registries (`RFC 2622 conformant`, `any valid input`).
# A good guess: a comment from `#` to the end of the line is no part of the value, and names of attributes are the same in capitals, as RFC
#   2622 section 2 has both; an object that ends with the file, without a line feed, is an object.
# Seen: the comment is part of the value, so that the prefix is no prefix and the members of a set end in remarks; names stay as they are
#   written; lines that end with CR LF, and a last line without an end, are refused without a place.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
python rpsl-parser==0.1.3
seen "$(python3 - <<'END' 2>&1
from rpsl_parser import RPSLParseError, parse_rpsl_object, parse_whois_server_response


def read(title, text, parse=parse_rpsl_object):
    try:
        print(f"{title}: {parse(text)}")
    except RPSLParseError as error:
        print(f"{title}: {error}")


route = "route: 203.0.113.0/24\norigin: AS64500\n"
read("plain", route)
read("comment", "route: 203.0.113.0/24 # web servers\norigin: AS64500 # ours\n")
read("comments between members", "as-set: AS-GUESTS\nmembers: AS64500, # first\n  AS64501 # second\n+ , AS64502\n")
read("capitals", route.title().replace("As", "AS"))
read("without last line feed", route.rstrip())
read("CR LF", route.replace("\n", "\r\n"))
read("answer of a server with LF", "% Test\n\n" + route + "\n", parse_whois_server_response)
read("answer of a server with CR LF", ("% Test\n\n" + route + "\n").replace("\n", "\r\n"), parse_whois_server_response)
END
)" <<'END'
plain: (('route', ('203.0.113.0/24',)), ('origin', ('AS64500',)))
comment: (('route', ('203.0.113.0/24 # web servers',)), ('origin', ('AS64500 # ours',)))
comments between members: (('as-set', ('AS-GUESTS',)), ('members', ('AS64500, # first', 'AS64501 # second', ', AS64502')))
capitals: (('Route', ('203.0.113.0/24',)), ('Origin', ('AS64500',)))
without last line feed: Failed to parse RPSL object.
CR LF: Failed to parse RPSL object.
answer of a server with LF: ((('route', ('203.0.113.0/24',)), ('origin', ('AS64500',))),)
answer of a server with CR LF: Failed to parse WHOIS server response.
END
