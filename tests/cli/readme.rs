//! The first guest of the README: every command of it is run on a node, and prints what the README says.

use std::path::Path;

use crate::common::Node;

/// Commands of the section and what each is said to print.
fn commands() -> Vec<(String, String)> {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let (_, section) = readme.split_once("\n## First guest\n").expect("a section about the first guest");
    let block = section.split("```").nth(1).expect("a block of commands");
    let mut found: Vec<(String, String)> = Vec::new();
    for line in block.lines().filter(|line| !line.is_empty()) {
        match (line.strip_prefix("# "), found.last_mut()) {
            (Some(command), _) => found.push((command.to_owned(), String::new())),
            (None, Some((_, output))) => *output += &format!("{line}\n"),
            (None, None) => panic!("`{line}` is the output of no command"),
        }
    }
    found
}

/// Times are those of the day on which somebody runs it.
fn without_time(text: &str) -> String {
    let is_time = |word: &str| word.len() >= 20 && word.as_bytes()[10] == b'T' && word.ends_with('Z');
    let line = |line: &str| {
        let words = line.split(' ').map(|word| if is_time(word) { "TIME" } else { word });
        words.collect::<Vec<_>>().join(" ") + "\n"
    };
    text.lines().map(line).collect()
}

#[test]
fn the_first_guest_of_the_readme_is_real() {
    let commands = commands();
    assert_eq!(commands.len(), 5, "five commands: {commands:?}");
    let node = Node::new();
    node.stand_in_proxmox();
    for (command, expected) in commands {
        let printed = if let Some(arguments) = command.strip_prefix("pve-public-ip ") {
            node.run(arguments).ok().out
        } else {
            // What `qm` does with a hookscript, and the port that QEMU makes.
            assert_eq!(command, "qm start 100");
            let config = node.tree.read("etc/pve/nodes/n1/qemu-server/100.conf");
            assert!(config.contains("hookscript: local:snippets/"), "{config}");
            let before = node.run("hook 100 pre-start").ok();
            node.plug("tap100i0");
            let after = node.run("hook 100 post-start").ok();
            format!("{}{}{}{}", before.out, before.err, after.out, after.err)
        };
        assert_eq!(without_time(&printed), without_time(&expected), "{command}");
    }
    // And back, as the sentence below says.
    node.run("release 100").ok();
}
