//! The forms in which a map is printed. Names come from people and guests, so whatever could end a label is escaped.

use std::collections::BTreeSet;

use super::{Item, Kind, Map};
use crate::model::text::escaped;

/// A tree for people; in ASCII where the terminal has nothing else.
pub fn text(map: &Map, unicode: bool) -> String {
    let branches = if unicode { ["├─ ", "└─ ", "│  "] } else { ["|- ", "`- ", "|  "] };
    let mut tree = Tree { map, branches, seen: BTreeSet::new(), text: String::new() };
    let targets: BTreeSet<usize> = map.edges.iter().map(|edge| edge.to).collect();
    for root in (0..map.items.len()).filter(|index| !targets.contains(index)) {
        tree.put(root, None, "", "");
    }
    tree.text
}

struct Tree<'a> {
    map: &'a Map,
    /// To a child, to the last child, past a child.
    branches: [&'static str; 3],
    seen: BTreeSet<usize>,
    text: String,
}

impl Tree<'_> {
    /// `first` stands before the item itself, `rest` before what is below it.
    fn put(&mut self, index: usize, nic: Option<&str>, first: &str, rest: &str) {
        let Item { title, details, .. } = &self.map.items[index];
        let again = !self.seen.insert(index);
        self.text += &format!("{first}{}{}\n", escaped(title), if again { " (above)" } else { "" });
        let children: Vec<_> = self.map.edges.iter().filter(|edge| edge.from == index && !again).collect();
        let past = if children.is_empty() { "   " } else { self.branches[2] };
        let details = details.iter().filter(|_| !again).map(String::as_str);
        for line in nic.into_iter().chain(details) {
            self.text += &format!("{rest}{past}  {}\n", escaped(line));
        }
        let last = children.len().saturating_sub(1);
        for (place, edge) in children.into_iter().enumerate() {
            let (branch, past) =
                if place == last { (self.branches[1], "   ") } else { (self.branches[0], self.branches[2]) };
            self.put(edge.to, edge.nic.as_deref(), &format!("{rest}{branch}"), &format!("{rest}{past}"));
        }
    }
}

/// A flowchart for Mermaid, as Markdown pages draw it.
pub fn mermaid(map: &Map) -> String {
    let mut text = "flowchart TD\n".to_owned();
    for (index, item) in map.items.iter().enumerate() {
        let (open, close) = match item.kind {
            Kind::Provider | Kind::Node => ("([", "])"),
            Kind::Guest => ("(", ")"),
            Kind::Uplink | Kind::Bridge | Kind::Vlan => ("[", "]"),
        };
        let lines: Vec<String> = lines(item).map(mermaid_text).collect();
        text += &format!("    n{index}{open}\"{}\"{close}\n", lines.join("<br/>"));
    }
    for edge in &map.edges {
        let label = edge.nic.as_deref().map(|nic| format!("|\"{}\"|", mermaid_text(nic))).unwrap_or_default();
        text += &format!("    n{} -->{label} n{}\n", edge.from, edge.to);
    }
    text
}

/// Mermaid reads `#NUMBER;` as the character of that number, inside of quotes too; all but the harmless are written so.
fn mermaid_text(text: &str) -> String {
    let harmless = |c: char| c.is_alphanumeric() || " .,:/-_()".contains(c);
    escaped(text).chars().map(|c| if harmless(c) { c.to_string() } else { format!("#{};", u32::from(c)) }).collect()
}

/// A graph for Graphviz.
pub fn dot(map: &Map) -> String {
    let mut text = "digraph topology {\n    node [shape=box];\n".to_owned();
    for (index, item) in map.items.iter().enumerate() {
        let shape = match item.kind {
            Kind::Provider | Kind::Node => ", shape=oval",
            Kind::Guest => ", style=rounded",
            Kind::Uplink | Kind::Bridge | Kind::Vlan => "",
        };
        let lines: Vec<String> = lines(item).map(dot_text).collect();
        text += &format!("    n{index} [label=\"{}\"{shape}];\n", lines.join("\\n"));
    }
    for edge in &map.edges {
        let label = edge.nic.as_deref().map(|nic| format!(" [label=\"{}\"]", dot_text(nic))).unwrap_or_default();
        text += &format!("    n{} -> n{}{label};\n", edge.from, edge.to);
    }
    text + "}\n"
}

/// Graphviz knows escapes with backslashes and, in labels, the entities of HTML.
fn dot_text(text: &str) -> String {
    escaped(text).replace('&', "&amp;").replace('\\', "\\\\").replace('"', "\\\"")
}

fn lines(item: &Item) -> impl Iterator<Item = &str> {
    std::iter::once(item.title.as_str()).chain(item.details.iter().map(String::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Edge;

    /// A guest whose name is made to break out of every label.
    fn hostile() -> Map {
        let name = "a\"b]<c>&d#e\\f`g|h\u{202e}i\nj\u{1b}[2Jü日";
        Map {
            items: vec![
                Item { kind: Kind::Bridge, title: "vmbr0".to_owned(), details: vec!["VLAN-aware".to_owned()] },
                Item { kind: Kind::Guest, title: format!("guest 100 {name}"), details: Vec::new() },
            ],
            edges: vec![
                Edge { from: 0, to: 1, nic: Some("net0".to_owned()) },
                Edge { from: 0, to: 1, nic: Some("net1".to_owned()) },
            ],
        }
    }

    #[test]
    fn names_do_not_break_out_of_labels() {
        assert_eq!(
            text(&hostile(), false),
            "vmbr0\n|    VLAN-aware\n|- guest 100 a\"b]<c>&d#e\\f`g|h\\u{202e}i\\nj\\u{1b}[2Jü日\n|       net0\n\
             `- guest 100 a\"b]<c>&d#e\\f`g|h\\u{202e}i\\nj\\u{1b}[2Jü日 (above)\n        net1\n"
        );
        assert_eq!(
            mermaid(&hostile()),
            "flowchart TD\n    n0[\"vmbr0<br/>VLAN-aware\"]\n    n1(\"guest 100 a#34;b#93;#60;c#62;#38;d#35;e#92;f#96;g#124;h#92;u#123;202e#125;i#92;nj#92;u#123;1b#125;#91;2Jü日\")\n    n0 -->|\"net0\"| n1\n    n0 -->|\"net1\"| n1\n"
        );
        assert_eq!(
            dot(&hostile()),
            "digraph topology {\n    node [shape=box];\n    n0 [label=\"vmbr0\\nVLAN-aware\"];\n    n1 [label=\"guest 100 a\\\"b]<c>&amp;d#e\\\\f`g|h\\\\u{202e}i\\\\nj\\\\u{1b}[2Jü日\", style=rounded];\n    n0 -> n1 [label=\"net0\"];\n    n0 -> n1 [label=\"net1\"];\n}\n"
        );
    }
}
