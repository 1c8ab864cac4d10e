//! Clients that others make, against the gateway and a real root part: buf, TypeScript, and the examples of docs/api.md.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use common::node::{Clients, Node, repository};
use common::{GATEWAY, Gateway, SUPERADMIN};
use serde_json::{Value, json};

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// What a command prints, which must succeed.
fn printed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", text(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Where the contract is beside what is generated of it.
fn project(clients: &Clients) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(repository().join("proto"), directory.path().join("proto")).unwrap();
    clients.link_modules(directory.path());
    directory
}

/// The blocks of code of this language that docs/api.md has between two headings.
fn examples(language: &str) -> Vec<String> {
    let page = fs::read_to_string(repository().join("docs/api.md")).unwrap();
    let part = page.split_once("\n## The gateway\n").unwrap().1;
    let part = part.split_once("\n**Secret.**").unwrap().0;
    let begin = format!("\n```{language}\n");
    part.split(&begin).skip(1).map(|block| block.split_once("\n```").unwrap().0.to_owned()).collect()
}

/// Says whether the types of a program in TypeScript fit, which node does not look at.
fn check_types(clients: &Clients, directory: &Path) {
    let options = json!({ "compilerOptions": {
        "strict": true, "noEmit": true, "target": "es2022", "module": "nodenext", "skipLibCheck": true, "types": ["node"]
    } });
    fs::write(directory.join("tsconfig.json"), options.to_string()).unwrap();
    fs::write(directory.join("package.json"), r#"{"type": "module"}"#).unwrap();
    printed(clients.command("tsc").current_dir(directory));
}

/// What a shell says to an example of the page, which is for the gateway at its usual place and guest 101.
fn shell(clients: &Clients, directory: &Path, gateway: &Gateway, example: &str) -> String {
    let script = example.replace("127.0.0.1:1537", &gateway.address.to_string());
    let script = script.replace("npx buf", "buf");
    printed(clients.command("/bin/sh").args(["-euc", &script]).env("SECRET", GATEWAY).current_dir(directory))
}

#[test]
fn the_examples_of_the_page_run() {
    let (clients, node) = (Clients::install(), Node::new());
    let gateway = Gateway::start(&node.socket(), &[], &[]);
    let project = project(&clients);
    let directory = project.path();
    let at = |text: &str| text.replace("127.0.0.1:1537", &gateway.address.to_string());

    let readme = fs::read_to_string(repository().join("README.md")).unwrap();
    let part = readme.split_once("\n## A panel's first call\n").unwrap().1.split_once("\ncurl ").unwrap().1;
    let first = format!("GATEWAY_API_SECRET=$SECRET\ncurl --silent {}", part.split_once("\n```").unwrap().0);
    let answer: Value = serde_json::from_str(&shell(&clients, directory, &gateway, &first)).unwrap();
    assert_eq!((&answer["changed"], &answer["ip"]["vmid"]), (&json!(true), &json!("100")), "{answer}");
    let (status, _) = gateway.call("UnassignVPSPublicIP", Some(SUPERADMIN), &json!({ "ip_id": "203.0.113.10" }));
    assert_eq!(status, 200);

    let scripts = examples("sh");
    let [curl, stubs, code] = &scripts[..] else { panic!("{scripts:?}") };
    let answer: Value = serde_json::from_str(&shell(&clients, directory, &gateway, curl)).unwrap();
    assert_eq!((&answer["changed"], &answer["ipAddress"]), (&json!(true), &json!("203.0.113.10")), "{answer}");

    shell(&clients, directory, &gateway, stubs);
    let programs = examples("python");
    let [python] = &programs[..] else { panic!("{programs:?}") };
    assert!(python.lines().count() <= 10, "{python}");
    fs::write(directory.join("panel.py"), at(python)).unwrap();
    assert_eq!(shell(&clients, directory, &gateway, "python panel.py"), "203.0.113.10 False\n");

    shell(&clients, directory, &gateway, code);
    let programs = examples("typescript");
    let [typescript] = &programs[..] else { panic!("{programs:?}") };
    assert!(typescript.lines().count() <= 10, "{typescript}");
    fs::write(directory.join("panel.ts"), at(typescript)).unwrap();
    check_types(&clients, directory);
    assert_eq!(shell(&clients, directory, &gateway, "node panel.ts"), "203.0.113.10 false\n");
}

#[test]
fn the_contract_is_as_buf_wants_it() {
    let clients = Clients::install();
    let proto = repository().join("proto");
    let output = clients.command("buf").arg("lint").arg(&proto).output().unwrap();
    assert!(output.status.success() && text(&output).is_empty(), "{}", text(&output));
    // It would say so if something were wrong.
    let directory = tempfile::tempdir().unwrap();
    let bad = "syntax = \"proto3\";\npackage other;\nservice api { rpc Get(A) returns (A); }\nmessage A {}\n";
    fs::write(directory.path().join("bad.proto"), bad).unwrap();
    let output = clients.command("buf").arg("lint").arg(directory.path()).output().unwrap();
    assert!(!output.status.success() && text(&output).contains("Service name \"api\" should be"), "{}", text(&output));
}

#[test]
fn buf_speaks_all_three_protocols_and_needs_no_file() {
    let (clients, node) = (Clients::install(), Node::new());
    let gateway = Gateway::start(&node.socket(), &[], &[]);
    let proto = repository().join("proto");
    let secret = format!("x-api-secret: {GATEWAY}");
    let call = |arguments: &[&str], method: &str, data: &Value| {
        let mut command = clients.command("buf");
        command.args(["curl", "--http2-prior-knowledge", "--header", &secret, "--data", &data.to_string()]);
        command.args(arguments).arg(format!("http://{}/pve_public_ip.v1.VPSGatewayService/{method}", gateway.address));
        command.output().unwrap()
    };
    let schema = ["--schema", proto.to_str().unwrap()];
    let mut held = false;
    for protocol in ["connect", "grpc", "grpcweb"] {
        for source in [&schema[..], &[]] {
            let with = [&["--protocol", protocol], source].concat();
            let output = call(&with, "AllocatePublicIP", &json!({ "vps_id": "shop", "public_ip": "203.0.113.10" }));
            let answer: Value = serde_json::from_str(&text(&output)).unwrap_or_else(|_| panic!("{}", text(&output)));
            assert_eq!(answer["ipAddress"], "203.0.113.10", "{with:?}: {answer}");
            assert_eq!(answer["changed"] == true, !std::mem::replace(&mut held, true), "{with:?}: {answer}");
            // An error exits with eight times its code: already_exists is 6.
            let output = call(&with, "AllocatePublicIP", &json!({ "vps_id": "mail", "public_ip": "203.0.113.10" }));
            let said = text(&output);
            assert_eq!(output.status.code(), Some(48), "{with:?}: {said}");
            assert!(said.contains("already_exists") && said.contains("is held by guest 101"), "{with:?}: {said}");
        }
    }
    // By reflection it knows all there is, without a secret.
    let listed = printed(
        clients
            .command("buf")
            .args(["curl", "--http2-prior-knowledge", "--list-methods"])
            .arg(format!("http://{}", gateway.address)),
    );
    for method in ["VPSGatewayService/WatchPublicIPs", "SuperadminService/VerifySecurity"] {
        assert!(listed.contains(method), "{method} is not in {listed}");
    }
}

#[test]
fn a_panel_in_typescript() {
    let (clients, node) = (Clients::install(), Node::new());
    let directory = project(&clients);
    let gateway = Gateway::start(&node.socket(), &[], &[]);
    shell(&clients, directory.path(), &gateway, &examples("sh")[2]);
    let source = repository().join("crates/gateway/tests/clients/panel.ts");
    fs::copy(source, directory.path().join("panel.ts")).unwrap();
    check_types(&clients, directory.path());
    let said = printed(
        clients
            .command("node")
            .args(["panel.ts", &gateway.address.to_string()])
            .env("GATEWAY_API_SECRET", GATEWAY)
            .env("SUPERADMIN_API_SECRET", SUPERADMIN)
            .current_dir(directory.path()),
    );
    assert_eq!(said.matches("all is as it should be").count(), 6, "{said}");
}
