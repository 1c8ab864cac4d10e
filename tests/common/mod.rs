//! A node to test against: a directory as its file system, a network namespace as its kernel.
//!
//! Nothing outside is touched. What a test needs and does not find makes it fail with the name of what is missing.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test stops at the first surprise")]

pub(crate) mod pings;
pub(crate) mod strace;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The program under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_pve-public-ip");

/// Where tools are looked for: never the machine's own `qm`.
pub(crate) const SYSTEM_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Longer than anything takes that is waited for, on the slowest machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until it is so.
#[track_caller]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A process that ends with this value.
pub(crate) struct Ends(pub(crate) Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Stops the test, saying what is missing, unless it runs as root with these programs.
pub(crate) fn need(programs: &[&str]) {
    assert!(nix::unistd::geteuid().is_root(), "this test needs root: it makes network namespaces");
    for program in programs {
        let found = SYSTEM_PATH.split(':').any(|directory| Path::new(directory).join(program).exists());
        assert!(found, "this test needs the program `{program}` (in {SYSTEM_PATH})");
    }
}

/// Whether a process waits: none of its threads runs or wants to run, and it has no child whose end it waits for. What is not
/// so on a loaded machine is still to come.
pub(crate) fn is_asleep(pid: u32) -> bool {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    tasks.flatten().all(|task| {
        let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        state.is_none_or(|state| state == 'S') && children.trim().is_empty()
    })
}

/// `ip monitor` where its command has it run, which listens already, and what it has told.
pub(crate) struct Monitor {
    child: Child,
    told: tempfile::NamedTempFile,
}

impl Monitor {
    pub(crate) fn start(mut command: Command) -> Self {
        let told = tempfile::NamedTempFile::new().unwrap();
        let child = command.stdout(told.reopen().unwrap()).spawn().unwrap();
        // Columns of the list of netlink sockets: address, family, process, groups.
        let listens = |line: &str| {
            let mut words = line.split_whitespace().skip(2);
            words.next() == Some(&child.id().to_string()) && words.next().is_some_and(|groups| groups != "00000000")
        };
        let sockets = || fs::read_to_string(format!("/proc/{}/net/netlink", child.id())).unwrap_or_default();
        until("`ip monitor` listens", || sockets().lines().any(listens));
        Self { child, told }
    }

    /// What it has told when it has told of `last`, too.
    pub(crate) fn told_until(mut self, last: &str) -> String {
        let limit = Instant::now() + Duration::from_secs(60);
        loop {
            let told = fs::read_to_string(self.told.path()).unwrap();
            if told.contains(last) {
                self.child.kill().unwrap();
                self.child.wait().unwrap();
                return told;
            }
            assert!(Instant::now() < limit, "nothing is told of {last}: {told}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Network and mount namespace of its own; it ends with this value, and with this process whatever happens.
pub(crate) struct Namespace {
    holder: Child,
    /// Commands run without the process that sees to their end, which takes as long again to start.
    pub(crate) is_unattended: bool,
}

impl Namespace {
    pub(crate) fn new() -> Self {
        need(&["unshare", "nsenter", "ip", "nft"]);
        let mut holder = Command::new("unshare")
            .args(["--net", "--mount", "sh", "-c", "ip link set lo up && echo ready && exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare starts");
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "this test needs to be allowed to make network and mount namespaces");
        Self { holder, is_unattended: false }
    }

    /// The process that holds it.
    pub(crate) fn pid(&self) -> u32 {
        self.holder.id()
    }

    /// A command inside.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.holder.id().to_string(), "--net", "--mount"]).arg(program);
        command.stdin(Stdio::null());
        for name in ["PVE_MIGRATED_FROM", "PROXMOX_OUTPUT_FORMAT", "PVE_PUBLIC_IP_ROOT", "LANG", "LC_CTYPE"] {
            command.env_remove(name);
        }
        command.env("LC_ALL", "C").env("PATH", SYSTEM_PATH);
        if self.is_unattended {
            command.env("PVE_PUBLIC_IP_SUPERVISED", "1");
        }
        command
    }

    /// A shell script inside, which must succeed; returns its output.
    pub(crate) fn sh(&self, script: &str) -> String {
        let output = self.command("sh").args(["-euc", script]).output().unwrap();
        let run = Run::of(format!("sh -c '{script}'"), &output);
        assert_eq!(run.code, 0, "{run}");
        run.out
    }

    /// Runs `body` in the network namespace and returns what it made: sockets stay where they were opened.
    pub(crate) fn inside<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        let file = fs::File::open(self.path()).unwrap();
        let there = || {
            nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).expect("enter a network namespace");
            body()
        };
        std::thread::scope(|scope| scope.spawn(there).join().expect("the thread in a network namespace"))
    }

    /// Waits until an interface is gone: a process that is just being started may still hold the tap device, too.
    pub(crate) fn until_gone(&self, port: &str) {
        let limit = Instant::now() + Duration::from_secs(60);
        self.inside(|| {
            while nix::net::if_::if_nametoindex(port).is_ok() {
                assert!(Instant::now() < limit, "{port} does not go away");
                std::thread::sleep(Duration::from_millis(1));
            }
        });
    }

    /// What `ip link ... netns` takes.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.holder.id())
    }

    /// The filter's table as a sorted list of words, `None` without one: equal for equal content, whatever the order
    /// in which the kernel lists its hash sets, and whatever it has counted.
    pub(crate) fn filter(&self) -> Option<Vec<String>> {
        let output = self.command("nft").args(["-s", "list", "table", "bridge", "pve-public-ip"]).output().unwrap();
        output.status.success().then(|| {
            let text = String::from_utf8(output.stdout).unwrap();
            let words = text.split(|c: char| c.is_whitespace() || c == ',').filter(|word| !word.is_empty());
            let mut words: Vec<String> = words.map(str::to_owned).collect();
            words.sort_unstable();
            words
        })
    }

    /// Elements of one set of the filter, sorted.
    pub(crate) fn set(&self, name: &str) -> Vec<String> {
        let text = self.sh(&format!("nft list set bridge pve-public-ip {name}"));
        let Some((_, rest)) = text.split_once("elements = {") else { return Vec::new() };
        let (inside, _) = rest.split_once('}').unwrap();
        let mut elements: Vec<String> = inside.split(',').map(|element| element.trim().to_owned()).collect();
        elements.sort_unstable();
        elements
    }

    /// What routed guests change about the node around them: settings, addresses, proxy entries.
    pub(crate) fn support(&self) -> Vec<String> {
        let text =
            self.sh("cd /proc/sys/net; grep -H . ipv4/conf/*/forwarding ipv6/conf/*/forwarding ipv6/conf/*/accept_ra \
             $(ls -d ipv6/conf/*/force_forwarding 2>/dev/null) ipv6/conf/*/proxy_ndp ipv4/conf/*/proxy_arp ipv4/ip_forward; ip neigh show proxy; \
             ip -o addr show | grep -v 'inet6 fe80::.*:' | sed -E 's/ scope (host|link) .*//; s/ *valid_lft.*//' | sort");
        // Guests' ports come and go.
        let is_port = |line: &str| line.contains("/tap") || line.contains(": tap") || line.contains("gap1");
        text.lines().filter(|line| !is_port(line)).map(str::to_owned).collect()
    }

    /// How many processes are inside, with the one that holds the namespace.
    pub(crate) fn processes(&self) -> usize {
        let own = fs::read_link(format!("/proc/{}/ns/net", self.holder.id())).unwrap();
        let entries = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path().join("ns/net"));
        entries.filter(|link| fs::read_link(link).is_ok_and(|namespace| namespace == own)).count()
    }

    /// Neighbours and routes that carry the program's mark, sorted.
    pub(crate) fn marked(&self) -> Vec<String> {
        let text = self.sh(
            "ip -4 neigh show proto 121; ip -6 neigh show proto 121; ip -4 route show proto 121; ip -6 route show proto 121",
        );
        let mut lines: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
        lines.sort_unstable();
        lines
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // `cat` ends at the end of its input.
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) command: String,
    /// Exit status; 128 + signal if it was killed.
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` ended with {}\n--- stdout\n{}--- stderr\n{}---", self.command, self.code, self.out, self.err)
    }
}

impl Run {
    pub(crate) fn of(command: String, output: &Output) -> Self {
        use std::os::unix::process::ExitStatusExt;
        let code = output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { command, code, out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// Exit status 0.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{self}");
        self
    }

    /// This command was announced on stderr; what else is there is left to the next check.
    #[track_caller]
    pub(crate) fn after_running(self, command: &str) -> Self {
        let line = format!("pve-public-ip: running {command}\n");
        let Some(rest) = self.err.strip_prefix(&line) else { panic!("`{command}` was not announced: {self}") };
        Self { err: rest.to_owned(), ..self }
    }

    /// Exit status 0, exactly this output, nothing on stderr.
    #[track_caller]
    pub(crate) fn prints(self, out: &str) -> Self {
        assert_eq!((self.code, self.out.as_str(), self.err.as_str()), (0, out, ""), "{self}");
        self
    }

    /// This exit status, nothing on stdout, exactly one error and one hint on stderr.
    #[track_caller]
    pub(crate) fn fails(self, code: i32, error: &str, hint: &str) -> Self {
        let expected = format!("error: {error}\nhint: {hint}\n");
        assert_eq!((self.code, self.out.as_str(), self.err.as_str()), (code, "", expected.as_str()), "{self}");
        self
    }

    /// This exit status and these words on stderr, for messages whose rest belongs to somebody else.
    #[track_caller]
    pub(crate) fn fails_with(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, code, "{self}");
        for word in words {
            assert!(self.err.contains(word), "without `{word}`: {self}");
        }
        self
    }

    /// The output as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self}"))
    }
}

/// A node's files.
pub(crate) struct Tree {
    directory: TempDir,
    /// The node's name.
    pub(crate) name: String,
}

impl Tree {
    /// Node `n1` without guests.
    pub(crate) fn new() -> Self {
        let tree = Self { directory: TempDir::new().unwrap(), name: "n1".to_owned() };
        for directory in ["etc/pve/nodes/n1/qemu-server", "etc/pve/nodes/n1/lxc", "etc/pve/priv", "var/lib/vz/snippets"]
        {
            fs::create_dir_all(tree.path(directory)).unwrap();
        }
        symlink("nodes/n1", tree.path("etc/pve/local")).unwrap();
        symlink("nodes/n1/qemu-server", tree.path("etc/pve/qemu-server")).unwrap();
        symlink("nodes/n1/lxc", tree.path("etc/pve/lxc")).unwrap();
        tree
    }

    /// A second node of the cluster: shares what pmxcfs shares, and has its own run directory.
    pub(crate) fn beside(&self, name: &str) -> Self {
        let tree = Self { directory: TempDir::new().unwrap(), name: name.to_owned() };
        fs::create_dir_all(tree.path("etc/pve")).unwrap();
        for shared in ["nodes", "priv", "public-ip"] {
            fs::create_dir_all(self.path(&format!("etc/pve/{shared}"))).unwrap();
            symlink(self.path(&format!("etc/pve/{shared}")), tree.path(&format!("etc/pve/{shared}"))).unwrap();
        }
        for kind in ["qemu-server", "lxc"] {
            fs::create_dir_all(tree.path(&format!("etc/pve/nodes/{name}/{kind}"))).unwrap();
        }
        symlink(format!("nodes/{name}"), tree.path("etc/pve/local")).unwrap();
        tree
    }

    pub(crate) fn root(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.root().join(relative)
    }

    pub(crate) fn read(&self, relative: &str) -> String {
        fs::read_to_string(self.path(relative)).unwrap_or_else(|error| panic!("{relative}: {error}"))
    }

    /// Writes a file, whole or not at all, as pmxcfs does: a guard may be about to read it.
    pub(crate) fn write(&self, relative: &str, content: impl AsRef<[u8]>) {
        let path = self.path(relative);
        let directory = path.parent().unwrap();
        fs::create_dir_all(directory).unwrap();
        let before = fs::symlink_metadata(&path).ok();
        if before.as_ref().is_some_and(|meta| !meta.is_file()) {
            fs::write(path, content).unwrap();
            return;
        }
        let new = directory.join(format!(".{}.tmp.test", path.file_name().unwrap().to_str().unwrap()));
        fs::write(&new, content).unwrap();
        if let Some(before) = before {
            fs::set_permissions(&new, before.permissions()).unwrap();
        }
        fs::rename(new, path).unwrap();
    }

    /// An executable script. Another process makes the file: a test beside this one that starts a program just now would have
    /// it open for writing, too, and the kernel would not run it (`ETXTBSY`).
    pub(crate) fn script(&self, relative: &str, text: &str) -> PathBuf {
        let path = self.path(relative);
        let source = path.with_extension("source");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&source, format!("#!/bin/sh\n{text}")).unwrap();
        let made = Command::new("install").args(["-m", "0755", "-T"]).args([&source, &path]).status().unwrap();
        assert!(made.success(), "{}", path.display());
        fs::remove_file(source).unwrap();
        path
    }

    /// The configuration of a virtual machine on this node.
    pub(crate) fn qemu(&self, vmid: u32, text: impl AsRef<[u8]>) {
        self.write(&format!("etc/pve/nodes/{}/qemu-server/{vmid}.conf", self.name), text);
    }

    /// The configuration of a container on this node.
    pub(crate) fn lxc(&self, vmid: u32, text: impl AsRef<[u8]>) {
        self.write(&format!("etc/pve/nodes/{}/lxc/{vmid}.conf", self.name), text);
    }

    /// A guest's file in the registry.
    pub(crate) fn guest_file(vmid: u32) -> String {
        format!("etc/pve/public-ip/guests/{vmid}.json")
    }

    /// Writes a guest's file in the registry by hand, with one address on `net0`.
    pub(crate) fn assign_by_hand(&self, vmid: u32, mac: &str, address: &str, pool: &str) {
        self.write(
            &Self::guest_file(vmid),
            serde_json::json!({"version": 1, "vmid": vmid, "interfaces": {"net0": {"mac": mac, "addresses": [
                {"address": address, "pool": pool, "assigned_at": "2026-11-22T10:00:00Z"}]}}})
            .to_string(),
        );
    }

    /// The file that has this pool, in whichever format the registry is.
    pub(crate) fn pool_file(&self, name: &str) -> String {
        let own = format!("etc/pve/public-ip/pools/{name}.json");
        if self.path(&own).exists() { own } else { "etc/pve/public-ip/pools.json".to_owned() }
    }

    /// Changes a pool by hand.
    pub(crate) fn edit_pool(&self, name: &str, edit: impl FnOnce(&mut serde_json::Value)) {
        let file = self.pool_file(name);
        let mut document: serde_json::Value = serde_json::from_str(&self.read(&file)).unwrap();
        edit(if file.ends_with("/pools.json") { &mut document["pools"][name] } else { &mut document });
        self.write(&file, document.to_string());
    }

    /// Every file under `/etc`, with its bytes: what a refused or pretended command must not change.
    pub(crate) fn etc(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        collect(&self.path("etc"), &mut found);
        found
    }

    /// The files of the run directory, by their paths in it. While the guard runs there may be one that it is writing
    /// right now: what is known before something happens is [`Tree::lasting`].
    pub(crate) fn volatile(&self) -> BTreeSet<String> {
        let (run, mut found) = (self.path("run/pve-public-ip"), BTreeMap::new());
        collect(&run, &mut found);
        let paths = found.keys().filter(|path| path.is_file());
        paths.map(|path| path.strip_prefix(&run).unwrap().to_str().unwrap().to_owned()).collect()
    }

    /// The same without what somebody is writing right now.
    pub(crate) fn lasting(&self) -> BTreeSet<String> {
        self.volatile().into_iter().filter(|path| !path.contains(".tmp.")).collect()
    }

    /// Every file and directory of the tree except the locks and caches under `/run`.
    pub(crate) fn registry(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        collect(&self.path("etc/pve/public-ip"), &mut found);
        found
    }
}

fn collect(path: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
    let Ok(meta) = fs::symlink_metadata(path) else { return };
    if meta.is_dir() {
        found.insert(path.to_owned(), b"directory".to_vec());
        match fs::read_dir(path) {
            // A lock is a directory that goes.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            entries => entries.unwrap().for_each(|entry| collect(&entry.unwrap().path(), found)),
        }
    } else if meta.is_symlink() {
        found.insert(path.to_owned(), fs::read_link(path).unwrap().into_os_string().into_encoded_bytes());
    } else if meta.is_file() {
        match fs::read(path) {
            // Written under another name and renamed meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            content => drop(found.insert(path.to_owned(), content.unwrap())),
        }
    } else {
        found.insert(path.to_owned(), b"special".to_vec());
    }
}

/// A tree with a namespace.
pub(crate) struct Node {
    pub(crate) tree: Tree,
    pub(crate) net: Namespace,
}

impl Node {
    /// `vmbr0` with the node's 203.0.113.250 and a fixed MAC; guests 100, 101 (QEMU) and 200 (LXC) on it.
    pub(crate) fn new() -> Self {
        let node = Self { tree: Tree::new(), net: Namespace::new() };
        node.net.sh(BRIDGE);
        node.tree.qemu(100, "name: web\nnet0: virtio=02:00:00:AA:BB:00,bridge=vmbr0\n");
        node.tree.qemu(101, "name: mail\nnet0: virtio=02:00:00:AA:BB:01,bridge=vmbr0,firewall=1\n");
        node.tree.lxc(200, "hostname: dns\nnet0: name=eth0,bridge=vmbr0,hwaddr=02:00:00:AA:BB:02,type=veth\n");
        node
    }

    /// An empty registry of version 1, where all pools will be in one file.
    pub(crate) fn begin_as_before(&self) {
        self.tree.write("etc/pve/public-ip/pools.json", r#"{"version":1,"pools":{}}"#);
    }

    /// The same with the pool of the examples: `203.0.113.10` to `.13` and `2001:db8:0:1::10`.
    pub(crate) fn with_pool() -> Self {
        let node = Self::new();
        node.run(CREATE).ok();
        node
    }

    /// The program with these arguments, not yet started.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.net.command(BINARY);
        command.arg("--root").arg(self.tree.root()).args(args);
        // A stand-in of the tree comes before everything else.
        command.env("PATH", format!("{}:{SYSTEM_PATH}", self.tree.path("stand-ins").display()));
        command
    }

    /// Runs the program; the arguments are separated by blanks.
    pub(crate) fn run(&self, args: &str) -> Run {
        self.run_with(args, &[])
    }

    /// As [`Self::run`], with more environment.
    pub(crate) fn run_with(&self, args: &str, environment: &[(&str, &str)]) -> Run {
        let words: Vec<&str> = args.split_whitespace().collect();
        let output = self.command(&words).envs(environment.iter().copied()).output().unwrap();
        Run::of(format!("pve-public-ip {args}"), &output)
    }

    /// Runs the program and checks that neither the files under `/etc` nor the filter change.
    #[track_caller]
    pub(crate) fn changes_nothing(&self, args: &str) -> Run {
        let before = (self.tree.etc(), self.net.filter(), self.net.marked());
        let run = self.run(args);
        assert!(before == (self.tree.etc(), self.net.filter(), self.net.marked()), "something changed: {run}");
        run
    }

    /// Plugs a port into `vmbr0`, as QEMU or LXC would; its other half is `<port>g`, cut to fit.
    pub(crate) fn plug(&self, port: &str) {
        self.net.sh(&format!(
            "ip link add {port} type veth peer name g{} && ip link set {port} master vmbr0 up",
            &port[1..]
        ));
    }

    pub(crate) fn unplug(&self, port: &str) {
        self.net.sh(&format!("ip link del {port}"));
    }

    /// The node is as it should be.
    #[track_caller]
    pub(crate) fn is_in_line(&self) {
        let run = self.run("verify").ok();
        assert!(run.out.contains("the kernel is as it should be"), "{run}");
    }

    /// Puts stand-ins for `qm` and `pct` first into `PATH`: they write down their arguments and edit the configuration.
    pub(crate) fn stand_in_proxmox(&self) {
        let set = "while [ $# -gt 0 ]; do\n\
             key=${1#--}\n\
             case \"$key\" in\n\
             delete) for key in $(echo $2 | tr , ' '); do sed -i \"/^$key:/d\" $conf; done;;\n\
             hookscript|cicustom|ipconfig?|net?) sed -i \"/^$key:/d\" $conf; sed -i \"1i $key: $2\" $conf;;\n\
             *) echo \"400 unable to parse option\" >&2; exit 255;;\n\
             esac\n\
             shift 2\n\
             done\n";
        let root = self.tree.root().display();
        // `pvesh set /nodes/NODE/qemu/VMID/config`
        let pvesh = format!(
            "root={root}\necho \"pvesh $*\" >> $root/calls\nIFS=/ read -r _ _ node kind vmid _ <<END\n$2\nEND\n\
             [ $kind = qemu ] && kind=qemu-server\nconf=$root/etc/pve/nodes/$node/$kind/$vmid.conf\nshift 2\n{set}"
        );
        self.tree.script("stand-ins/pvesh", &pvesh);
        for (tool, kind) in [("qm", "qemu-server"), ("pct", "lxc")] {
            self.tree.script(
                &format!("stand-ins/{tool}"),
                &format!(
                    "root={root}\necho \"{tool} $*\" >> $root/calls\nconf=$root/etc/pve/nodes/n1/{kind}/$2.conf\n\
                     case \"$1 $2\" in\n\
                     \"cloudinit dump\") echo \"instance-id: as-dumped\"; exit;;\n\
                     \"cloudinit update\") exit;;\n\
                     \"guest exec\") cat $root/agent; exit;;\n\
                     esac\n\
                     shift 2\n{set}"
                ),
            );
        }
    }

    /// What the stand-ins were called with.
    pub(crate) fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.tree.path("calls")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

/// The bridge of [`Node::new`]; its MAC is fixed so that two runs give the same filter.
pub(crate) const BRIDGE: &str = "ip link add vmbr0 address 02:00:00:00:00:fe type bridge && ip link set vmbr0 up && ip addr add 203.0.113.250/24 dev vmbr0";

/// The way to a provider, for nodes with routed pools.
pub(crate) const PROVIDER: &str = "ip link add wan0 address 02:00:00:00:00:ff type bridge && ip link set wan0 up && \
    ip route add default dev wan0 && ip -6 route add default dev wan0";

/// A pool whose addresses are routed to guests on `vmbr0`, and answered for towards the provider.
pub(crate) const CREATE_ROUTED: &str = "pool create net --profile ovh-routed --bridge vmbr0 --gateway4 169.254.0.1 \
    --gateway6 fe80::1 192.0.2.8/29 2001:db8:1::/64";

/// The pool of [`Node::with_pool`].
pub(crate) const CREATE: &str = "pool create ovh-rbx --profile generic-bridged --bridge vmbr0 --gateway4 203.0.113.1 \
    203.0.113.10 203.0.113.11 203.0.113.12 203.0.113.13 2001:db8:0:1::10/128";
