//! Where things lie. One value, made in `main`, so that a whole node can be a directory (`--root`).

use std::path::{Path, PathBuf};

use crate::model::{GuestKind, NodeName, PoolName, Vmid};

/// All paths that the program uses, under one root.
#[derive(Debug, Clone)]
pub struct Paths {
    root: PathBuf,
}

impl Paths {
    /// Paths of the node whose file system begins at `root` (`/` for this machine).
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Whether this is the machine itself and not a copy of a tree.
    pub fn is_machine(&self) -> bool {
        self.root == Path::new("/")
    }

    /// `path` as this root has it; `path` is absolute.
    pub fn under_root(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// `/etc/pve`: pmxcfs on Proxmox VE, an ordinary directory elsewhere.
    pub fn etc_pve(&self) -> PathBuf {
        self.under_root("/etc/pve")
    }

    /// The symbolic link that names the node on Proxmox VE.
    pub fn local_node(&self) -> PathBuf {
        self.etc_pve().join("local")
    }

    /// All nodes of the cluster.
    pub fn nodes(&self) -> PathBuf {
        self.etc_pve().join("nodes")
    }

    /// Which guest is on which node, kept by pmxcfs.
    pub fn vmlist(&self) -> PathBuf {
        self.etc_pve().join(".vmlist")
    }

    /// Storage definitions of the cluster.
    pub fn storage_cfg(&self) -> PathBuf {
        self.etc_pve().join("storage.cfg")
    }

    /// Exists where Proxmox VE's cluster file system is installed, mounted or not.
    pub fn pmxcfs_database(&self) -> PathBuf {
        self.under_root("/var/lib/pve-cluster/config.db")
    }

    /// Configuration of a guest, if it is on `node`.
    pub fn guest_config(&self, node: &NodeName, kind: GuestKind, vmid: Vmid) -> PathBuf {
        self.nodes().join(node.as_str()).join(config_dir(kind)).join(format!("{vmid}.conf"))
    }

    /// Configuration of a guest of this node, by the link that Proxmox VE keeps beside the nodes.
    pub fn linked_guest_config(&self, kind: GuestKind, vmid: Vmid) -> PathBuf {
        self.etc_pve().join(config_dir(kind)).join(format!("{vmid}.conf"))
    }

    /// Where the configurations of a node's guests lie: its own directory, else the link beside the nodes.
    pub fn local_config_dirs(&self, node: &NodeName, kind: GuestKind) -> Vec<PathBuf> {
        let own = self.nodes().join(node.as_str()).join(config_dir(kind));
        let linked = self.etc_pve().join(config_dir(kind));
        if own.is_dir() { vec![own] } else { vec![linked] }
    }

    /// The registry: pools and assignments.
    pub fn registry(&self) -> PathBuf {
        self.etc_pve().join("public-ip")
    }

    /// The keys of the API: below `priv`, which only root reads.
    pub fn keys_file(&self) -> PathBuf {
        self.etc_pve().join("priv/public-ip/keys.json")
    }

    /// Pools and their addresses.
    pub fn pools_file(&self) -> PathBuf {
        self.registry().join("pools.json")
    }

    /// Directory of the pools' own files, from version 2 of the format on.
    pub fn pool_files(&self) -> PathBuf {
        self.registry().join("pools")
    }

    /// The file of one pool.
    pub fn pool_file(&self, name: &PoolName) -> PathBuf {
        self.pool_files().join(format!("{name}.json"))
    }

    /// Whether a file, or the directory of the pools' files, says something about pools.
    pub fn is_of_pools(&self, path: &Path) -> bool {
        path == self.pools_file() || path == self.pool_files() || path.parent() == Some(&self.pool_files())
    }

    /// Addresses that were taken back not long ago.
    pub fn released_file(&self) -> PathBuf {
        self.registry().join("released.json")
    }

    /// Directory of the per-guest files.
    pub fn guest_files(&self) -> PathBuf {
        self.registry().join("guests")
    }

    /// Per-guest public-IP config.
    pub fn guest_file(&self, vmid: Vmid) -> PathBuf {
        self.guest_files().join(format!("{vmid}.json"))
    }

    /// Optional settings of one node.
    pub fn node_file(&self, node: &NodeName) -> PathBuf {
        self.registry().join("nodes").join(format!("{node}.json"))
    }

    /// What nodes note for each other.
    pub fn releases(&self) -> PathBuf {
        self.registry().join("releases")
    }

    /// What a node notes for the others: its release.
    pub fn release_file(&self, node: &NodeName) -> PathBuf {
        self.releases().join(format!("{node}.json"))
    }

    /// Firewall rules of the datacenter and of guests.
    pub fn firewall(&self) -> PathBuf {
        self.etc_pve().join("firewall")
    }

    /// Firewall options of a node.
    pub fn host_firewall(&self, node: &NodeName) -> PathBuf {
        self.nodes().join(node.as_str()).join("host.fw")
    }

    /// Who is in the cluster, kept by pmxcfs.
    pub fn members(&self) -> PathBuf {
        self.etc_pve().join(".members")
    }

    /// The node's network configuration.
    pub fn interfaces(&self) -> PathBuf {
        self.under_root("/etc/network/interfaces")
    }

    /// What Proxmox VE's SDN has given away: where it is now, and where it was before 8.4.
    pub fn sdn_allocations(&self) -> [PathBuf; 2] {
        [self.etc_pve().join("sdn/pve-ipam-state.json"), self.etc_pve().join("priv/ipam.db")]
    }

    /// Directory in which Proxmox VE keeps its cluster-wide locks.
    pub fn cluster_locks(&self) -> PathBuf {
        self.etc_pve().join("priv/lock")
    }

    /// Volatile state of this node.
    pub fn run(&self) -> PathBuf {
        self.under_root("/run/pve-public-ip")
    }

    /// The kernel's file system for programs that it runs.
    pub fn programs(&self) -> PathBuf {
        self.under_root("/sys/fs/bpf")
    }

    /// State of this node that outlives a boot.
    pub fn state(&self) -> PathBuf {
        self.under_root("/var/lib/pve-public-ip")
    }

    /// What was changed, by whom and when. Rotated, it has more behind this name.
    pub fn audit_log(&self) -> PathBuf {
        self.state().join("audit.log")
    }

    /// The registry as the audit log knows it.
    pub fn audited(&self) -> PathBuf {
        self.state().join("audited.json")
    }

    /// What the audit log knows beyond that: lines, the newest last.
    pub fn audited_since(&self) -> PathBuf {
        self.state().join("audited.changes")
    }

    /// Copies of the registry's files as this node could read them last.
    pub fn last_good(&self) -> PathBuf {
        self.state().join("last-good")
    }

    /// What files of the registry were before a copy was put in their place.
    pub fn replaced(&self) -> PathBuf {
        self.state().join("replaced")
    }

    /// The routers behind the uplinks, as they were learnt.
    pub fn routers(&self) -> PathBuf {
        self.state().join("routers.json")
    }

    /// Where Debian's `node_exporter` looks for metrics of others.
    pub fn textfiles(&self) -> PathBuf {
        self.under_root("/var/lib/prometheus/node-exporter")
    }

    /// Messages to the administrator that wait to be delivered.
    pub fn messages(&self) -> PathBuf {
        self.run().join("alerts")
    }

    /// The syslog socket.
    pub fn dev_log(&self) -> PathBuf {
        self.under_root("/dev/log")
    }

    /// Directory of the storage `local`, which every node has.
    pub fn local_storage(&self) -> PathBuf {
        self.under_root("/var/lib/vz")
    }
}

fn config_dir(kind: GuestKind) -> &'static str {
    match kind {
        GuestKind::Qemu => "qemu-server",
        GuestKind::Lxc => "lxc",
    }
}
