#!/bin/bash
# Subject: rpki-ov-checker 0.0.6 for Python, which says of each RPKI-invalid route what the traffic follows once that route is dropped.
# A good guess: the route that takes over is the most specific one that is left around it, as routers forward; what is said of a route does not
#   depend on a larger one beyond that.
# Seen: lengths are compared as text, so a /8 or /9 counts as more specific than a /24: with one in the table the covering route is that, and
#   `covered by valid` becomes `covered by not found`. From /10 on it is right.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
python rpki-ov-checker==0.0.6 py-radix==1.1.0 requests==2.32.3 urllib3==2.3.0 idna==3.10 certifi==2025.1.31 charset-normalizer==3.4.1
echo '{"roas": [{"asn": 64500, "prefix": "203.0.113.0/24", "maxLength": 24, "ta": "test"}]}' >"$work/vrps"
checked() {
    echo "$*:"
    printf '%s\n' "$@" | python3 -m rpki_ov_checker.checker -c "$work/vrps" | grep ' 203.0.113.0/25 ' | sed 's/^/  /'
}
seen "$(checked '203.0.113.0/25 64999'
checked '203.0.113.0/25 64999' '203.0.113.0/24 64500'
checked '203.0.113.0/25 64999' '203.0.113.0/24 64500' '203.0.112.0/20 64510'
checked '203.0.113.0/25 64999' '203.0.113.0/24 64500' '203.0.0.0/10 64510'
checked '203.0.113.0/25 64999' '203.0.113.0/24 64500' '203.0.0.0/9 64510'
checked '203.0.113.0/25 64999' '203.0.113.0/24 64500' '203.0.0.0/8 64510'
checked '203.0.113.0/25 64999' '203.0.112.0/20 64510' '203.0.0.0/8 64511')" <<'END'
203.0.113.0/25 64999:
  invalid_unreachable 203.0.113.0/25 64999
203.0.113.0/25 64999 203.0.113.0/24 64500:
  invalid_covered_by_valid 203.0.113.0/25 64999 covering route: 203.0.113.0/24 64500
203.0.113.0/25 64999 203.0.113.0/24 64500 203.0.112.0/20 64510:
  invalid_covered_by_valid 203.0.113.0/25 64999 covering route: 203.0.113.0/24 64500
203.0.113.0/25 64999 203.0.113.0/24 64500 203.0.0.0/10 64510:
  invalid_covered_by_valid 203.0.113.0/25 64999 covering route: 203.0.113.0/24 64500
203.0.113.0/25 64999 203.0.113.0/24 64500 203.0.0.0/9 64510:
  invalid_covered_by_notfound 203.0.113.0/25 64999 covering route: 203.0.0.0/9 64510
203.0.113.0/25 64999 203.0.113.0/24 64500 203.0.0.0/8 64510:
  invalid_covered_by_notfound 203.0.113.0/25 64999 covering route: 203.0.0.0/8 64510
203.0.113.0/25 64999 203.0.112.0/20 64510 203.0.0.0/8 64511:
  invalid_covered_by_notfound 203.0.113.0/25 64999 covering route: 203.0.0.0/8 64511
END
