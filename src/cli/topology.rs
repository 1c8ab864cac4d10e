//! `topology`: the node drawn, and what cannot work as it is drawn.

use serde_json::json;

use super::answers::{Drawn, Flaws};
use super::output::{Output, advised, has_utf8};
use super::{Drawing, Topology, advice};
use crate::code;
use crate::interfaces::Interfaces;
use crate::model::Subject;
use crate::model::text::one_line;
use crate::paths::Paths;
use crate::survey;
use crate::topology::{Flaw, check, dot, draw, mermaid, text};

pub(super) fn topology(paths: &Paths, command: &Topology) -> anyhow::Result<Output> {
    let site = survey::site(paths);
    let files = site.files.map_err(|unreadable| {
        advice(code!("etc-pve-unreadable"), Subject::Node, unreadable.reason, unreadable.remedy)
    })?;
    let mut inputs = files.inputs;
    let mut unknown: Vec<String> = site.unknown;
    let unreadable = files.unreadable.iter().map(|(vmid, reason)| format!("guest {vmid}: {reason}"));
    unknown.extend(unreadable);
    inputs.links = site.links;
    let interfaces: Interfaces = site.interfaces;
    if command.check {
        return Ok(checked(&check(&inputs, &interfaces), &unknown));
    }
    unknown.extend(inputs.registry.broken.iter().map(ToString::to_string));
    let map = draw(&inputs, &interfaces);
    let (drawn, comment) = match command.format {
        Drawing::Text if map.items.is_empty() => (format!("node {}: no bridges, no guests\n", inputs.node), ""),
        Drawing::Text => (text(&map, has_utf8()), ""),
        Drawing::Mermaid => (mermaid(&map), "%% "),
        Drawing::Dot => (dot(&map), "// "),
    };
    // A reason may have lines of its own, which would end the comment.
    let rest = unknown.iter().map(|reason| one_line(reason));
    let rest: String = rest.map(|reason| format!("{comment}not drawn: {reason}\n")).collect();
    let data = Drawn { node: inputs.node.clone(), items: map.items, edges: map.edges, not_drawn: unknown };
    Ok(Output::new(drawn + &rest, json!(data)))
}

fn checked(flaws: &[Flaw], unknown: &[String]) -> Output {
    let mut text: String = flaws.iter().map(|flaw| advised(flaw.code, &flaw.sentence, &flaw.remedy)).collect();
    text += &unknown.iter().map(|reason| format!("not looked at: {}\n", one_line(reason))).collect::<String>();
    if flaws.is_empty() {
        text += "nothing found: addresses, gateways and MACs agree\n";
    }
    let code = if flaws.is_empty() { 0 } else { 3 };
    Output::new(text, json!(Flaws { flaws: flaws.to_vec(), not_looked_at: unknown.to_vec() })).with_code(code)
}
