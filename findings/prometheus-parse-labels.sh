#!/bin/bash
# Subject: prometheus-parse 0.2.5, the crate that reads the text format of Prometheus in Rust.
# A good guess: a label's value may hold anything between its quotes, and a line that cannot be read is an error.
# Seen: the labels are split at commas and equals signs, quotes or not: a value ends at its comma, a label with an
#   equals sign in its value is gone, the blank behind a comma becomes part of the next name. A line with a brace in a
#   value, with a colon in the name (as recording rules have) or without labels between braces is left out, without an
#   error; escapes stay as they are.
# shellcheck source=findings/lib
. "$(dirname "$0")/lib" || exit
crates prometheus-parse@=0.2.5 <<'END'
fn main() {
    for line in [
        r#"drops{port="tap100i0",reason="arp"} 1"#,
        r#"drops{port="tap100i0", reason="arp"} 2"#,
        r#"drops{reason="arp, sender",port="tap100i0"} 3"#,
        r#"drops{rule="proto=arp",port="tap100i0"} 4"#,
        r#"drops{rule="{arp}"} 5"#,
        r#"drops{rule="the \"first\""} 6"#,
        "guest:drops:rate5m 7",
        "drops{} 8",
    ] {
        let page = prometheus_parse::Scrape::parse(std::iter::once(Ok(line.to_string()))).expect("no error");
        let mut labels: Vec<_> = page.samples.iter().flat_map(|sample| sample.labels.iter()).collect();
        labels.sort();
        println!("{line}\n  samples {} labels {labels:?}", page.samples.len());
    }
}
END
seen "$("$work/reader/target/debug/reader")" <<'END'
drops{port="tap100i0",reason="arp"} 1
  samples 1 labels [("port", "tap100i0"), ("reason", "arp")]
drops{port="tap100i0", reason="arp"} 2
  samples 1 labels [(" reason", "arp"), ("port", "tap100i0")]
drops{reason="arp, sender",port="tap100i0"} 3
  samples 1 labels [("port", "tap100i0"), ("reason", "arp")]
drops{rule="proto=arp",port="tap100i0"} 4
  samples 1 labels [("port", "tap100i0")]
drops{rule="{arp}"} 5
  samples 0 labels []
drops{rule="the \"first\""} 6
  samples 1 labels [("rule", "the \\\"first\\")]
guest:drops:rate5m 7
  samples 0 labels []
drops{} 8
  samples 0 labels []
END
