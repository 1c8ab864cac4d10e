#!/bin/bash
# Subject: netaddr 1.3.0, EUI("...") on a MAC without separators.
# A good guess: digits are hexadecimal, padded or refused when there are not twelve of them.
# Seen: twelve and eleven digits are hexadecimal, ten or thirteen are a decimal number, without a word. One digit lost from 525400123456
#   is another vendor's MAC, two digits lost an unrelated one.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
python netaddr==1.3.0
seen "$(python3 - <<'END'
from netaddr import EUI
for text in "525400123456", "52540012345", "5254001234", "5254001234567":
    print(text, EUI(text), int(EUI(text)) == int(text))
END
)" <<'END'
525400123456 52-54-00-12-34-56 False
52540012345 05-25-40-01-23-45 False
5254001234 00-01-39-29-B2-52 True
5254001234567 04-C7-4A-E0-92-87 True
END
