//! Holds what is generated or written beside the code to the code: manual page, completions, schemas, version numbers.

#![expect(clippy::disallowed_methods, reason = "a test writes its own files and runs the program and its checkers")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use clap::{Arg, ValueEnum as _};
use pve_public_ip::cli::SchemaFile;
use pve_public_ip::doctor::{CHECKS, Check};
use serde_json::Value;

#[path = "../examples/docs/pages.rs"]
mod pages;

/// Debian's own, from python3-jsonschema: an implementation that shares nothing with ours.
const CHECKER: &str = "/usr/bin/jsonschema";

fn page(name: &str) -> String {
    let all = pages::all().expect("the pages can be made");
    let found = all.into_iter().find(|(file, _)| *file == name);
    found.unwrap_or_else(|| panic!("there is no page {name}")).1
}

fn source(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

fn run(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).output();
    output.unwrap_or_else(|error| panic!("cannot run {program} ({error}); `make setup` installs it"))
}

fn both(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The manual page as a reader sees it, without hyphenation and line breaks.
fn manual_as_read() -> String {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join(pages::MANUAL);
    fs::write(&path, page(pages::MANUAL)).expect("the page can be written");
    let output = run("groff", &["-man", "-ww", "-Tutf8", "-P-cbou", "-rHY=0", "-rLL=1000n", &path.to_string_lossy()]);
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "groff complains: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    // groff sets typographic hyphens and minus signs.
    let text = String::from_utf8_lossy(&output.stdout)
        .replace(['\u{2010}', '\u{2212}'], "-")
        .replace(['\u{2018}', '\u{2019}'], "'");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn spelling(arg: &Arg) -> String {
    match (arg.get_long(), arg.get_short()) {
        (Some(long), _) => format!("--{long}"),
        (None, Some(short)) => format!("-{short}"),
        (None, None) => arg.get_value_names().unwrap_or_default().iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn manual_has_every_command_option_and_value() {
    let manual = manual_as_read();
    let command = pages::command();
    let leaves = pages::leaves(&command);
    assert!(leaves.len() > 10, "only {} commands", leaves.len());
    let mut missing = BTreeSet::new();
    let mut expect = |text: String| {
        if !manual.contains(&text) {
            missing.insert(text);
        }
    };
    // clap words the help of --help differently from place to place.
    let all = command.get_arguments().chain(leaves.iter().flat_map(|(_, leaf)| leaf.get_arguments()));
    for arg in all.filter(|arg| arg.get_id() != "help") {
        expect(format!(" {} ", spelling(arg)));
        let help = arg.get_help().map_or_else(|| panic!("{} has no help", spelling(arg)), ToString::to_string);
        expect(help.split_whitespace().collect::<Vec<_>>().join(" "));
        for value in arg.get_possible_values().iter().filter(|_| arg.get_action().takes_values()) {
            expect(value.get_name().to_owned());
        }
    }
    for (name, leaf) in &leaves {
        expect(format!(" {name} "));
        expect(leaf.get_about().map_or_else(|| panic!("{name} has no help"), ToString::to_string));
    }
    assert!(missing.is_empty(), "the manual page does not have: {missing:#?}");
}

#[test]
fn manual_knows_the_environment_and_the_exit_statuses() {
    let manual = manual_as_read();
    let section = |title: &str, next: &str| {
        let (_, rest) = manual.split_once(&format!(" {title} ")).unwrap_or_else(|| panic!("no section {title}"));
        rest.split_once(&format!(" {next} ")).unwrap_or_else(|| panic!("{next} does not follow {title}")).0.to_owned()
    };
    let environment = section("ENVIRONMENT", "EXIT STATUS");
    for arg in pages::command().get_arguments() {
        let Some(variable) = arg.get_env() else { continue };
        let entry = format!("{} Same as {}", variable.to_string_lossy(), spelling(arg));
        assert!(environment.contains(&entry), "`{entry}` is not in: {environment}");
    }
    // What `--help` says about the exit status in one line is what the page explains.
    let help = pages::command().get_long_about().map(ToString::to_string).unwrap_or_default();
    let (_, summary) = help.split_once("Exit status: ").expect("the help names the exit statuses");
    let listed: BTreeSet<&str> = summary.split(", ").filter_map(|entry| entry.split(' ').next()).collect();
    let explained = section("EXIT STATUS", "FINDINGS OF DOCTOR");
    let found: BTreeSet<&str> = explained.split(' ').filter(|word| word.parse::<u8>().is_ok()).collect();
    assert_eq!(found, listed);
}

#[test]
fn manual_has_every_finding_of_doctor() {
    let manual = manual_as_read();
    let (_, findings) = manual.split_once(" FINDINGS OF DOCTOR ").expect("a section of findings");
    for Check { code, severity, explanation, .. } in CHECKS {
        let entry = format!(" {code} ({}) {explanation} ", severity.as_str());
        assert!(findings.contains(&entry), "`{entry}` is not in: {findings}");
    }
}

/// Every example in the manual is a command line that the program takes.
#[test]
fn manual_examples_parse() {
    use clap::Parser as _;
    let page = page(pages::MANUAL).replace("\\-", "-");
    let (_, examples) = page.split_once(".SH EXAMPLES").expect("a section of examples");
    let lines = examples.lines().flat_map(|line| line.split(" || ")).filter(|line| line.starts_with("pve-public-ip "));
    let mut seen = 0;
    for line in lines {
        let parsed = pve_public_ip::cli::Cli::try_parse_from(line.split_whitespace());
        assert!(parsed.is_ok(), "`{line}`: {}", parsed.map(|_| ()).unwrap_err());
        seen += 1;
    }
    assert!(seen > 5, "only {seen} examples found");
}

/// What a reader of the project finds beside the program, with the name of the file.
fn guides() -> Vec<(String, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let files = fs::read_dir(directory).expect("the directory can be read");
    let mut names: Vec<String> =
        files.map(|file| format!("docs/{}", file.expect("a file").file_name().to_string_lossy())).collect();
    names.extend(["README.md", "CHANGELOG.md"].map(str::to_owned));
    names.sort_unstable();
    names.into_iter().map(|name| (name.clone(), source(&name))).collect()
}

/// A placeholder, replaced by something of its kind.
fn filled_in(word: &str) -> &str {
    match word {
        "NAME" | "POOL" => "rbx",
        "VMID" => "100",
        "ID" => "10",
        "ADDRESS" | "IP" | "PREFIX" => "203.0.113.10",
        "MAC" => "02:00:00:aa:bb:cc",
        "PHASE" => "pre-start",
        "CODE" => "hookscript-missing",
        "SHELL" => "bash",
        "NODE" => "pve1",
        "ROLE" => "gateway",
        other => other,
    }
}

/// A command that somebody copies has to be one.
#[test]
fn commands_in_the_guides_parse() {
    use clap::Parser as _;
    let mut seen = 0;
    for (name, text) in guides() {
        let text = text.replace("\\\n", " ");
        let prompted = text.lines().filter_map(|line| {
            ["", "# ", "$ ", "node# "]
                .iter()
                .find_map(|prompt| line.strip_prefix(prompt).filter(|rest| rest.starts_with("pve-public-ip ")))
        });
        // Inline, where a line may end in the middle of one.
        let joined = text.replace('\n', " ");
        let quoted = joined.split('`').filter(|quoted| quoted.starts_with("pve-public-ip "));
        for command in prompted.chain(quoted) {
            let command = command.split(['|', '>', ';', '#']).next().unwrap_or_default();
            // Dots stand for what is left out.
            if command.contains("...") {
                continue;
            }
            let words =
                command.split_whitespace().map(|word| filled_in(word.trim_start_matches('[').trim_end_matches(']')));
            let words = pve_public_ip::cli::with_help_of_problems(words.map(Into::into));
            let parsed = pve_public_ip::cli::Cli::try_parse_from(words);
            assert!(parsed.is_ok(), "{name}: `{command}`: {}", parsed.map(|_| ()).unwrap_err());
            seen += 1;
        }
    }
    assert!(seen > 40, "only {seen} commands found");
}

/// The README is read in one go; everything else is one click away.
#[test]
fn the_readme_is_short_and_leads_to_every_page() {
    let readme = source("README.md");
    assert!(readme.lines().count() <= 150, "README.md has {} lines; 150 are allowed", readme.lines().count());
    for (name, page) in guides().into_iter().filter(|(name, _)| name.starts_with("docs/")) {
        assert!(readme.contains(&format!("]({name})")), "README.md does not lead to {name}");
        // A title, then the purpose of the page, before anything else.
        let mut blocks = page.split("\n\n").map(str::trim);
        let title = blocks.next().unwrap_or_default();
        assert!(title.starts_with("# ") && !title.contains('\n'), "{name} has no title");
        let purpose = blocks.next().unwrap_or_default();
        let is_prose = purpose.starts_with(|c: char| c.is_alphabetic() || c == '`') && purpose.lines().count() <= 4;
        assert!(is_prose, "{name} does not begin with its purpose: {purpose}");
    }
}

/// Tables and blocks of commands have the width that they need.
#[test]
fn prose_of_the_readme_fits_a_window() {
    let mut is_block = false;
    for (number, line) in source("README.md").lines().enumerate() {
        is_block ^= line.starts_with("```");
        let width = line.chars().count();
        assert!(is_block || line.starts_with('|') || width <= 120, "README.md:{}: {width} columns", number + 1);
    }
    assert!(!is_block, "a block is not closed");
}

#[test]
fn the_page_of_commands_has_all_of_them() {
    let page = source("docs/commands.md");
    for (name, _) in pages::leaves(&pages::command()) {
        let name = name.trim_start_matches("pve-public-ip ");
        let is_there = [" ", "`"].iter().any(|end| page.contains(&format!("`{name}{end}")));
        assert!(is_there, "docs/commands.md does not have `{name}`");
    }
}

#[test]
fn links_in_the_guides_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut seen = 0;
    for (name, text) in guides() {
        let directory = root.join(&name).parent().expect("a directory").to_owned();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.starts_with("https://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() { root.join(&name) } else { directory.join(file) };
            assert!(path.exists(), "{name}: there is no {target}");
            // As the hosts of repositories make one of a heading.
            let slug = |heading: &str| -> String {
                let kept = heading
                    .to_lowercase()
                    .chars()
                    .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
                    .collect::<String>();
                kept.trim().replace(' ', "-")
            };
            let has_anchor = |text: String| text.lines().any(|line| line.starts_with('#') && slug(line) == anchor);
            let is_there = anchor.is_empty() || has_anchor(fs::read_to_string(&path).expect("a page"));
            assert!(is_there, "{name}: {file} has no heading for #{anchor}");
            seen += 1;
        }
    }
    assert!(seen > 5, "only {seen} links found");
}

/// What bash offers after `line`, by the shipped script, which asks the program in this directory.
fn bash_offers(directory: &Path, line: &str) -> BTreeSet<String> {
    let words: Vec<&str> = line.split(' ').collect();
    let program = format!(
        "PATH={directory}:$PATH; source {directory}/completion; COMP_LINE='{line} '; COMP_WORDS=({line} ''); COMP_CWORD={}; \
         $(complete -p pve-public-ip | sed 's/.*-F *\\([^ ]*\\).*/\\1/') pve-public-ip '' '{}'; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        words.len(),
        words.last().unwrap_or(&""),
        directory = directory.display(),
    );
    let output = run("bash", &["-c", &program]);
    assert!(output.status.success() && output.stderr.is_empty(), "{line}: {}", both(&output));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// Guests, pools and addresses are offered too: `tests/cli/questions.rs`.
#[test]
fn completions_offer_every_command_and_option() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("completion"), page("completions/bash/pve-public-ip")).expect("the script");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_pve-public-ip"), directory.path().join("pve-public-ip"))
        .expect("a link");
    for (name, leaf) in pages::leaves(&pages::command()) {
        let (parent, last) = name.rsplit_once(' ').expect("a command has a parent");
        let offered = bash_offers(directory.path(), parent);
        assert!(offered.contains(last), "after `{parent}` bash does not offer {last}: {offered:?}");
        let offered = bash_offers(directory.path(), &name);
        for arg in leaf.get_arguments().filter(|arg| !arg.is_positional()) {
            assert!(
                offered.contains(&spelling(arg)),
                "after `{name}` bash does not offer {}: {offered:?}",
                spelling(arg)
            );
        }
    }
    let offered = bash_offers(directory.path(), "pve-public-ip");
    assert!(!offered.contains("complete-words"), "what only the scripts call is not offered: {offered:?}");
    // These two ask in the same way; no test has their shells.
    for script in ["completions/zsh/_pve-public-ip", "completions/fish/pve-public-ip.fish"] {
        assert!(page(script).contains("pve-public-ip complete-words "), "{script}");
    }
}

/// The program with these arguments. It changes the kernel's tables too: those of a network namespace that ends with it.
fn in_namespace(arguments: &[&str]) -> Output {
    let program: Vec<&str> =
        ["-n", env!("CARGO_BIN_EXE_pve-public-ip")].into_iter().chain(arguments.iter().copied()).collect();
    run("unshare", &program)
}

/// A registry that the program itself has written, as large as its commands can make it; the file about the pool `a` is the
/// first. In version 1 all pools are in one file.
fn written_registry(version: u64) -> (tempfile::TempDir, [(PathBuf, &'static str); 5]) {
    let node = tempfile::tempdir().expect("a directory");
    let root = node.path();
    for directory in ["etc/pve/nodes/n1/qemu-server", "etc/pve/nodes/n1/lxc", "run"] {
        fs::create_dir_all(root.join(directory)).expect("a tree");
    }
    std::os::unix::fs::symlink("nodes/n1", root.join("etc/pve/local")).expect("a link");
    let config = "name: web\nhookscript: local:snippets/own.sh\nnet0: virtio=02:00:00:AA:BB:CC,bridge=vmbr0\n";
    fs::write(root.join("etc/pve/nodes/n1/qemu-server/100.conf"), config).expect("a guest");
    let registry = root.join("etc/pve/public-ip");
    if version == 1 {
        fs::create_dir_all(&registry).expect("a directory");
        fs::write(registry.join("pools.json"), r#"{"version":1,"pools":{}}"#).expect("an empty registry");
    }
    for arguments in [
        "pool create a --profile generic-bridged --bridge vmbr0 --gateway4 203.0.113.1 --gateway6 2001:db8::1 203.0.113.10/32 2001:db8::10/128",
        "pool create b --profile ovh-bridged --bridge vmbr0",
        "pool add b 198.51.100.7/32 --mac 02:00:00:aa:bb:cc --gateway 198.51.100.1 --monthly-cost-cents 150",
        "assign 100 --pool a --organization example",
        "assign 100 198.51.100.7",
        "release 100 2001:db8::10",
    ] {
        let root = root.to_string_lossy();
        let arguments: Vec<&str> = ["--root", &*root].into_iter().chain(arguments.split(' ')).collect();
        let output = in_namespace(&arguments);
        assert!(output.status.success(), "{arguments:?}: {}", both(&output));
    }
    let file = registry.join("nodes/n1.json");
    fs::create_dir_all(registry.join("nodes")).expect("a directory");
    // The only file that people write; the program reads it below.
    fs::write(&file, r#"{ "version": 1, "uplinks": ["eno1", "bond0"] }"#).expect("settings of the node");
    let output = in_namespace(&["--root", &root.to_string_lossy(), "show", "100"]);
    assert!(output.status.success(), "{}", both(&output));
    let (all, one) =
        ((registry.join("pools.json"), "schema/pools.json"), (registry.join("pools/a.json"), "schema/pool.json"));
    assert_eq!(one.0.exists(), version == 2);
    let files = [
        if version == 1 { all.clone() } else { one },
        all,
        (registry.join("guests/100.json"), "schema/guest.json"),
        (file, "schema/node.json"),
        (registry.join("released.json"), "schema/released.json"),
    ];
    (node, files)
}

fn check_schema(schema: &str, instance: &Path) -> Output {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("schema.json");
    fs::write(&path, page(schema)).expect("the schema can be written");
    run(CHECKER, &["-i", &instance.to_string_lossy(), &path.to_string_lossy()])
}

#[test]
fn schemas_accept_what_the_program_writes() {
    let (_old, before) = written_registry(1);
    let (node, files) = written_registry(2);
    for (path, schema) in before.into_iter().chain(files) {
        // The checker also checks the schema itself against its meta-schema.
        let output = check_schema(schema, &path);
        assert!(output.status.success(), "{} against {schema}: {}", path.display(), both(&output));
    }
    let log = fs::read_to_string(node.path().join("var/lib/pve-public-ip/audit.log")).expect("the audit log");
    for event in ["pool-created", "entry-added", "assigned"] {
        let line = log.lines().find(|line| line.contains(&format!("\"event\":\"{event}\""))).expect("an entry");
        let path = node.path().join("line.json");
        fs::write(&path, line).expect("a line of it");
        let output = check_schema("schema/audit.json", &path);
        assert!(output.status.success(), "{line}: {}", both(&output));
    }
}

#[test]
fn schemas_refuse_what_the_program_refuses() {
    for version in [1, 2] {
        are_refused(version);
    }
}

fn are_refused(version: u64) {
    let (node, [(pool, schema), _, (guest, _), (settings, _), (released, _)]) = written_registry(version);
    let [bridge, profile, colour] = if version == 1 {
        ["/pools/a/bridge", "/pools/a/profile", "/pools/a/colour"]
    } else {
        ["/bridge", "/profile", "/colour"]
    };
    let cases: [(&Path, &str, &str, Value, &str); 8] = [
        (&pool, schema, bridge, 7.into(), "7 is not of type 'string'"),
        (&pool, schema, profile, "ovh".into(), "'ovh' is not"),
        (&pool, schema, colour, "red".into(), "'colour' was unexpected"),
        (&guest, "schema/guest.json", "/vmid", "hundred".into(), "'hundred' is not of type"),
        (&guest, "schema/guest.json", "/interfaces/net0/addresses", Value::Null, "None is not of type 'array'"),
        (&guest, "schema/guest.json", "/interfaces/net0/colour", "red".into(), "'colour' was unexpected"),
        (&released, "schema/released.json", "/addresses", 7.into(), "7 is not of type 'object'"),
        (&settings, "schema/node.json", "/colour", "red".into(), "'colour' was unexpected"),
    ];
    for (path, schema, pointer, value, complaint) in cases {
        let good = fs::read_to_string(path).expect("the file");
        let mut data: Value = serde_json::from_str(&good).expect("JSON");
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        data.pointer_mut(parent).expect("a parent")[key] = value;
        fs::write(path, data.to_string()).expect("the broken file");
        let output = check_schema(schema, path);
        assert!(!output.status.success() && both(&output).contains(complaint), "{pointer}: {}", both(&output));
        let output = in_namespace(&["--root", &node.path().to_string_lossy(), "plan"]);
        let problem = format!("problem: `{}` ", path.display());
        assert!(both(&output).contains(&problem), "{pointer}: {}", both(&output));
        fs::write(path, good).expect("the good file again");
    }
}

/// The number in the first entry of a Debian changelog or of CHANGELOG.md.
fn first_version(text: &str, before: &str, after: &str) -> String {
    let line =
        text.lines().find(|line| line.starts_with(before)).unwrap_or_else(|| panic!("no line begins with `{before}`"));
    line[before.len()..].split(after).next().unwrap_or_default().trim().to_owned()
}

#[test]
fn versions_agree() {
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(first_version(&source("debian/changelog"), "pve-public-ip (", ")"), version, "debian/changelog");
    assert_eq!(first_version(&source("CHANGELOG.md"), "## ", " "), version, "CHANGELOG.md");
    let output = run(env!("CARGO_BIN_EXE_pve-public-ip"), &["--version"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("pve-public-ip {version}\n"));
}

/// The package ships these very files; the names in its scripts are checked here because a shell script has no types.
#[test]
fn package_ships_what_is_generated() {
    let lists = source("debian/pve-public-ip.install") + &source("debian/pve-public-ip.manpages");
    for (name, _) in pages::all().expect("the pages can be made") {
        let (directory, _) = name.rsplit_once('/').unwrap_or((name, ""));
        assert!(lists.contains(&format!("build/pages/{directory}")), "debian/ does not install {name}");
    }
    let kinds =
        SchemaFile::value_variants().iter().filter_map(|kind| Some(kind.to_possible_value()?.get_name().to_owned()));
    let kinds: Vec<String> = kinds.collect();
    let shipped: Vec<&str> = pages::SCHEMAS.iter().map(|(_, kind)| *kind).collect();
    assert_eq!(kinds, shipped, "the package has a schema of each kind that `pve-public-ip schema` prints");
    let hookscript = source("hookscripts/pve-public-ip");
    assert!(hookscript.contains("exec /usr/sbin/pve-public-ip hook \"$@\""), "{hookscript}");
    let protocol = source("debian/rt_protos.d/pve-public-ip.conf");
    let entry: Vec<&str> =
        protocol.lines().filter(|line| !line.starts_with('#')).flat_map(str::split_whitespace).collect();
    let [number, "pve-public-ip"] = entry[..] else { panic!("not one number and our name: {entry:?}") };
    assert!(
        source("src/system/rtnetlink.rs").contains(&format!("const PROTOCOL: u8 = {number};")),
        "not the program's number"
    );
    let postrm = source("debian/pve-public-ip.postrm");
    let marks = postrm.matches(" proto ").count();
    assert!(marks >= 3, "purge leaves neighbours, routes or proxy entries");
    assert_eq!(
        postrm.matches(&format!(" proto {number}")).count(),
        marks,
        "purge looks for another number than {number}"
    );
}

/// Each guarantee names the tests that hold it, as `FILE` or `FILE::NAME`.
#[test]
fn guarantees_name_tests_that_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| ") && line.contains('`')).collect();
    assert!(rows.len() > 10, "only {} guarantees found", rows.len());
    for row in rows {
        let names = row.rsplit('|').nth(1).unwrap().split('`').skip(1).step_by(2);
        let mut seen = 0;
        for name in names {
            let parts: Vec<&str> = name.split("::").collect();
            let directory = root.join("tests").join(parts[0]);
            let test = parts.last().filter(|_| parts.len() > 1);
            let files = match parts.get(1).filter(|_| parts.len() > 2) {
                Some(module) => vec![directory.join(format!("{module}.rs"))],
                None if directory.join("main.rs").exists() => {
                    fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect()
                }
                None => vec![directory.with_extension("rs")],
            };
            let sources: String = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
            let is_there = test.is_none_or(|test| sources.contains(&format!("#[test]\nfn {test}(")));
            assert!(is_there, "there is no test {name}");
            seen += 1;
        }
        assert!(seen > 0, "no test holds this: {row}");
    }
}
