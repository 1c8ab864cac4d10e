#!/bin/bash
# Subject: cidr-man 1.5.4 for Python, which offers itself in place of the module ipaddress.
# A good guess: prefixes can be sorted, compared with `<=`, and looked for in a list of both families, as those of
#   ipaddress can.
# Seen: `<` means `contains`, so sorted() leaves strangers where they stand and the result depends on the order before.
#   `<=` is not there (the method is called __lte__), and an IPv4 prefix compared with an IPv6 one, if only for
#   equality, raises ValueError: `in` on a mixed list does.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
python cidr-man==1.5.4
seen "$(python3 - <<'END'
from ipaddress import ip_network
from cidr_man import CIDR
texts = ["203.0.113.0/24", "198.51.100.0/24", "203.0.113.0/25", "192.0.2.0/24"]
for kind in ip_network, CIDR:
    print(kind.__name__)
    for order in texts, texts[::-1]:
        print("  sorted:", *sorted(map(kind, order)))
    for name, question in {
        "<=": lambda: kind(texts[0]) <= kind(texts[2]),
        "==": lambda: kind(texts[0]) == kind("2001:db8::/32"),
        "in": lambda: kind(texts[0]) in [kind("2001:db8::/32"), kind(texts[0])],
    }.items():
        try:
            print(f"  {name}:", question())
        except (TypeError, ValueError) as error:
            print(f"  {name}:", type(error).__name__)
END
)" <<'END'
ip_network
  sorted: 192.0.2.0/24 198.51.100.0/24 203.0.113.0/24 203.0.113.0/25
  sorted: 192.0.2.0/24 198.51.100.0/24 203.0.113.0/24 203.0.113.0/25
  <=: True
  ==: False
  in: True
CIDR
  sorted: 203.0.113.0/24 198.51.100.0/24 203.0.113.0/25 192.0.2.0/24
  sorted: 192.0.2.0/24 203.0.113.0/25 198.51.100.0/24 203.0.113.0/24
  <=: TypeError
  ==: ValueError
  in: ValueError
END
