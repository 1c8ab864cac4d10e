//! A node below a directory with its real root part, and the clients that others make.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The root program, which cargo puts beside the gateway.
pub fn root_program() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_pve-public-ip-gateway")).with_file_name("pve-public-ip");
    assert!(path.exists(), "{} is missing: `cargo build --bin pve-public-ip` makes it", path.display());
    path
}

/// A node below a directory, in a network namespace of its own, and its root part.
pub struct Node {
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
    pub fn new() -> Self {
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
        guest(100, "web");
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

    pub fn root(&self) -> &Path {
        self.directory.path()
    }

    pub fn socket(&self) -> PathBuf {
        self.root().join("run/pve-public-ip/api.sock")
    }

    /// The program, for what has no effect outside of the directory.
    pub fn run(&self, arguments: &[&str]) -> String {
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

/// The directory of the project.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Programs of others that call the API, installed once.
pub struct Clients {
    programs: PathBuf,
}

impl Clients {
    pub fn install() -> Self {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../gateway-clients");
        let output = Command::new(repository().join("scripts/gateway-clients")).arg(&directory).output().unwrap();
        assert!(output.status.success(), "scripts/gateway-clients: {}", String::from_utf8_lossy(&output.stderr));
        Self { programs: String::from_utf8(output.stdout).unwrap().trim().into() }
    }

    /// A program, which finds the others, too.
    pub fn command(&self, program: &str) -> Command {
        // One of the system has a path of its own.
        let mut command = Command::new(self.programs.join(program));
        command.env("PATH", format!("{}:/usr/bin:/bin", self.programs.display()));
        command
    }

    /// Where node finds modules: beside a file or in a directory above it.
    pub fn link_modules(&self, directory: &Path) {
        let modules = self.programs.join("../../node_modules").canonicalize().unwrap();
        std::os::unix::fs::symlink(modules, directory.join("node_modules")).unwrap();
    }
}
