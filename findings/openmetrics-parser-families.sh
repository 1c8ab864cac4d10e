#!/bin/bash
# Subject: openmetrics-parser 0.5.1, the crate, its function for the text format of Prometheus (`parse_prometheus`).
# A good guess: it reads what Prometheus reads: `# TYPE` may be left out (the metric is untyped then, says the documentation of the text
#   format), and the samples of a name need not have the same labels.
# Seen: without `# TYPE` or `# HELP` all samples are one family, and the second name is an error. Samples of one name with different labels are
#   one, too: `up` with and without a label, or a label that only some have. With one such line the whole page cannot be
#   read. The order of the labels does not matter.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
crates openmetrics-parser@=0.5.1 <<'END'
fn main() {
    for page in [
        "# TYPE a gauge\na 1\n# TYPE b gauge\nb 2\n",
        "a 1\n",
        "a 1\nb 2\n",
        "# HELP a first\na 1\n# HELP b second\nb 2\n",
        "# TYPE address gauge\naddress{guest=\"100\",family=\"4\"} 1\naddress{family=\"6\",guest=\"101\"} 1\n",
        "# TYPE address gauge\naddress{guest=\"100\",vlan=\"10\"} 1\naddress{guest=\"101\"} 1\n",
        "# TYPE address gauge\naddress{guest=\"100\",vlan=\"10\"} 1\naddress{guest=\"101\",vlan=\"\"} 1\n",
        "# TYPE up gauge\nup 1\nup{node=\"a\"} 1\n",
    ] {
        let read = openmetrics_parser::prometheus::parse_prometheus(page);
        println!("{page:?}:");
        println!("  {}", read.map_or_else(|error| error.to_string(), |page| format!("{} families", page.families.len())));
    }
}
END
seen "$("$work/reader/target/debug/reader")" <<'END'
"# TYPE a gauge\na 1\n# TYPE b gauge\nb 2\n":
  2 families
"a 1\n":
  1 families
"a 1\nb 2\n":
  Invalid Name in metric family: b != a
"# HELP a first\na 1\n# HELP b second\nb 2\n":
  2 families
"# TYPE address gauge\naddress{guest=\"100\",family=\"4\"} 1\naddress{family=\"6\",guest=\"101\"} 1\n":
  1 families
"# TYPE address gauge\naddress{guest=\"100\",vlan=\"10\"} 1\naddress{guest=\"101\"} 1\n":
  Labels in metrics have different label sets
"# TYPE address gauge\naddress{guest=\"100\",vlan=\"10\"} 1\naddress{guest=\"101\",vlan=\"\"} 1\n":
  1 families
"# TYPE up gauge\nup 1\nup{node=\"a\"} 1\n":
  Metrics in family have different label sets: Some(LabelNames { names: [], metric_type: Gauge }) ["a"]
END
