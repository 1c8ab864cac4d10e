#!/bin/bash
# Subject: parse-prometheus-text-format 1.1.1 for JavaScript.
# A good guess: a histogram with a label comes back as one entry for each value of the label, as counters and gauges do.
# Seen: all are laid over each other: the buckets are those of the last one, its sum and count and the labels are gone.
#   Without labels the same histogram is complete, and summaries are the same. An exemplar (OpenMetrics) becomes the
#   timestamp.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
npm parse-prometheus-text-format@1.1.1
cat >"$work/read.mjs" <<'END'
import parse from "parse-prometheus-text-format";
const series = (labels, few, all) => `delay_bucket{${labels}le="1"} ${few}
delay_bucket{${labels}le="+Inf"} ${all}
delay_sum${labels && `{${labels}}`} ${all}
delay_count${labels && `{${labels}}`} ${all}
`;
const show = text => console.log(JSON.stringify(parse(text)[0].metrics));
show("# TYPE delay histogram\n" + series("", 1, 2));
show("# TYPE delay histogram\n" + series('port="tap100i0",', 1, 2) + series('port="tap101i0",', 30, 40));
show('# TYPE frames counter\nframes{port="tap100i0"} 1\nframes{port="tap101i0"} 2\n');
show('# TYPE frames counter\nframes 1 # {id="a"} 5\n');
END
seen "$(node "$work/read.mjs")" <<'END'
[{"buckets":{"1":"1","+Inf":"2"},"count":"2","sum":"2"}]
[{"buckets":{"1":"30","+Inf":"40"}}]
[{"value":"1","labels":{"port":"tap100i0"}},{"value":"2","labels":{"port":"tap101i0"}}]
[{"value":"1","timestamp_ms":"#{id=\"a\"}5"}]
END
