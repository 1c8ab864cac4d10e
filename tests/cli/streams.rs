//! Where output goes: what others write to the same place stays, and nothing of ours is lost.

use crate::common::{BINARY, Node};

/// A log that a script has opened for itself and for all that it starts, for both streams or one.
#[test]
fn a_file_that_others_write_to_as_well() {
    let node = Node::with_pool();
    let (root, log) = (node.tree.root().display().to_string(), node.tree.path("log"));
    let program = format!("{BINARY} --root {root}");
    // A command that only looks, one that changes something, one that fails; with words on both streams.
    let commands =
        ["status", "assign 100 203.0.113.10 --no-hookscript", "show 999", "verify", "release 100 203.0.113.10"];
    let write = |to: &str| {
        let body: String =
            commands.map(|command| format!("echo before {command}; {program} {command} || true;\n")).concat();
        node.net.sh(&format!("{{ {body} echo end; }} {to}"));
    };
    let lines = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let read = || std::fs::read_to_string(&log).unwrap();
    for (file, piped) in [(">LOG 2>&1", "2>&1 | cat >LOG"), (">LOG 2>/dev/null", "2>/dev/null | cat >LOG")] {
        let to = |how: &str| how.replace("LOG", &log.display().to_string());
        write(&to(piped));
        let whole = lines(&read());
        assert!(whole.len() > 2 * commands.len(), "{whole:?}");
        for _ in 0..5 {
            write(&to(file));
            assert_eq!(lines(&read()), whole, "{}", read());
        }
    }
}
