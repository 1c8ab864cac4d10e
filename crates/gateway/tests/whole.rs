//! The whole way: a client of gRPC, the gateway, the root part, and a node below a directory.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::{GATEWAY, Gateway, SUPERADMIN, until};
use serde_json::json;

/// The root program, which cargo puts beside the gateway.
fn root_program() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_pve-public-ip-gateway")).with_file_name("pve-public-ip");
    assert!(path.exists(), "{} is missing: `cargo build --bin pve-public-ip` makes it", path.display());
    path
}

/// A node below a directory, in a network namespace of its own, and its root part.
struct Node {
    directory: tempfile::TempDir,
    serve: Child,
}

/// Proxmox VE's tools, as far as they are called: they change lines of a guest's configuration.
const TOOL: &str = "#!/bin/sh
conf=ROOT/etc/pve/nodes/n1/qemu-server/$2.conf
[ \"$1\" = set ] || exit 0
shift 2
while [ $# -gt 1 ]; do
    key=${1#--}
    case \"$key\" in
        delete) sed -i \"/^$2:/d\" \"$conf\" ;;
        *) sed -i \"/^$key:/d\" \"$conf\"; sed -i \"1i $key: $2\" \"$conf\" ;;
    esac
    shift 2
done
";

impl Node {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        for path in [
            "etc/pve/nodes/n1/qemu-server",
            "etc/pve/nodes/n1/lxc",
            "etc/pve/priv",
            "var/lib/vz/snippets",
            "bin",
            "run/pve-public-ip",
        ] {
            fs::create_dir_all(root.join(path)).unwrap();
        }
        for (name, target) in [("local", "nodes/n1"), ("qemu-server", "nodes/n1/qemu-server"), ("lxc", "nodes/n1/lxc")]
        {
            std::os::unix::fs::symlink(target, root.join("etc/pve").join(name)).unwrap();
        }
        let guest = |vmid: u32, name: &str| {
            let mac = format!("02:00:00:AA:BB:{:02X}", vmid - 100);
            let text = format!("name: {name}\nnet0: virtio={mac},bridge=vmbr0\n");
            fs::write(root.join(format!("etc/pve/nodes/n1/qemu-server/{vmid}.conf")), text).unwrap();
        };
        guest(101, "shop");
        guest(102, "mail");
        for vmid in 110..122 {
            guest(vmid, &format!("guest{vmid}"));
        }
        let tool = root.join("bin/qm");
        // Written by another process: one that is started at this moment by another thread would keep it open for writing.
        let text = TOOL.replace("ROOT", root.to_str().unwrap());
        let written =
            Command::new("sh").args(["-c", "printf %s \"$1\" >\"$2\"", "sh", &text, tool.to_str().unwrap()]).status();
        assert!(written.unwrap().success());
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
        let script = "ip link set lo up
            ip link add vmbr0 address 02:00:00:00:00:fe type bridge
            ip link set vmbr0 up
            ip addr add 203.0.113.250/24 dev vmbr0
            \"$1\" --root \"$2\" pool create ovh-rbx --profile generic-bridged --bridge vmbr0 --gateway4 203.0.113.1 203.0.113.10 203.0.113.11
            exec \"$1\" --root \"$2\" serve --listen \"$2/run/pve-public-ip/api.sock\"";
        let serve = Command::new("unshare")
            .args(["--net", "--mount", "sh", "-euc", script, "sh"])
            .args([root_program().as_path(), root])
            .env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", root.join("bin").display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { directory, serve }
    }

    fn root(&self) -> &Path {
        self.directory.path()
    }

    fn socket(&self) -> PathBuf {
        self.root().join("run/pve-public-ip/api.sock")
    }

    /// The program, for what has no effect outside of the directory.
    fn run(&self, arguments: &[&str]) -> String {
        let output = Command::new(root_program()).arg("--root").arg(self.root()).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.serve.kill());
        drop(self.serve.wait());
    }
}

#[test]
fn a_panel_in_python_and_a_real_root_part() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let clients = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../gateway-clients");
    let python = Command::new(repository.join("scripts/gateway-clients")).arg(&clients).output().unwrap();
    assert!(python.status.success(), "scripts/gateway-clients: {}", String::from_utf8_lossy(&python.stderr));
    let node = Node::new();
    let gateway = Gateway::start(&node.socket(), &[], &[]);
    let output = Command::new(String::from_utf8(python.stdout).unwrap().trim())
        .arg(repository.join("crates/gateway/tests/client.py"))
        .args([&gateway.address.to_string(), repository.join("proto").to_str().unwrap(), node.root().to_str().unwrap()])
        .env("GATEWAY_API_SECRET", GATEWAY)
        .env("SUPERADMIN_API_SECRET", SUPERADMIN)
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("all is as it should be"), "{said}");
    let log = fs::read_to_string(node.root().join("var/lib/pve-public-ip/audit.log")).unwrap();
    for words in ["api:superadmin", "api:gateway", "AssignVPSPublicIP from 127.0.0.1:"] {
        assert!(log.contains(words), "{words} is not in the audit log:\n{log}");
    }
    assert!(!log.contains(GATEWAY) && !log.contains(SUPERADMIN), "{log}");
}

#[test]
fn keys_of_the_root_part_count_until_they_are_revoked() {
    let node = Node::new();
    let gateway = Gateway::start(&node.socket(), &[], &[]);
    let made =
        node.run(&["key", "add", "panel", "--role", "gateway", "--organization", "acme", "--output-format", "json"]);
    let made: serde_json::Value = serde_json::from_str(&made).unwrap();
    let secret = made["secret"].as_str().unwrap_or_else(|| panic!("{made}"));
    until("the key counts", || gateway.call("ListPublicIPs", Some(secret), &json!({})).0 == 200);
    let allocate = json!({ "vps_id": "shop", "public_ip": "203.0.113.10" });
    let (status, answer) = gateway.call("AllocatePublicIP", Some(secret), &allocate);
    assert_eq!((status, &answer["ip"]["organizationId"]), (200, &json!("acme")), "{answer}");
    let other = json!({ "vps_id": "mail", "public_ip": "203.0.113.11", "organization_id": "other" });
    assert_eq!(gateway.call("AllocatePublicIP", Some(GATEWAY), &other).0, 200);
    let (status, answer) = gateway.call("GetPublicIP", Some(secret), &json!({ "public_ip": "203.0.113.11" }));
    assert_eq!((status, &answer["code"]), (404, &json!("not_found")), "{answer}");
    let (_, listed) = gateway.call("ListPublicIPs", Some(secret), &json!({}));
    assert_eq!(listed["ips"].as_array().unwrap().len(), 1, "{listed}");
    let (_, listed) = gateway.call("ListPublicIPs", Some(GATEWAY), &json!({}));
    assert_eq!(listed["ips"].as_array().unwrap().len(), 2, "{listed}");
    node.run(&["key", "revoke", "panel"]);
    until("it counts no more", || gateway.call("ListPublicIPs", Some(secret), &json!({})).0 == 401);
}
