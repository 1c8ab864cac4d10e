#!/bin/bash
# Subject: prometheus-client 0.26.0 for Python, its parser of the text format (as of node_exporter's textfile directory).
# A good guess: samples come out with the names and timestamps that are in the text.
# Seen: a counter without `_total` is given it, so a test that reads back its own page finds names that Prometheus never stores; and the
#   milliseconds of the text format become seconds.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
python prometheus_client==0.26.0
seen "$(python3 - <<'END'
from prometheus_client.parser import text_string_to_metric_families as parse
page = "# TYPE dropped counter\ndropped 3 1700000000500\n# TYPE guests gauge\nguests 5\n"
for family in parse(page):
    for sample in family.samples:
        print(family.name, family.type, sample.name, sample.value, sample.timestamp)
END
)" <<'END'
dropped counter dropped_total 3 1700000000.5
guests gauge guests 5 None
END
