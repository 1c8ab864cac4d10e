//! The ways of life. Sources of the orders: qemu-server `PVE/QemuServer.pm`, `PVE/QemuMigrate.pm`, `PVE/CLI/qm.pm`,
//! pve-container `PVE/LXC.pm` and its post-stop hook, of Proxmox VE 8 and 9.

use crate::script::Row;

/// By command, and by the guest itself.
pub(crate) const START_AND_STOP: &[Row] = &[
    (
        "start and stop",
        "tap100i0",
        "n1 start 100 | running -
         n1 stop 100  | - -",
    ),
    (
        "behind the NIC firewall",
        "tap100i0",
        "n1 start 100 behind firewall | running -
         n1 stop 100                  | - -",
    ),
    (
        "shut down from inside: no pre-stop",
        "tap100i0",
        "n1 start 100 | running -
         nothing: reset, reboot inside, suspend, resume | running -
         n1 halt 100  | - -",
    ),
    (
        "a shutdown that times out, and one that does not",
        "tap100i0",
        "n1 start 100                     | running -
         n1 hook 100 pre-stop             | running -
         nothing: the guest does not care | running -
         n1 stop 100                      | - -",
    ),
    (
        "reboot",
        "tap100i0",
        "n1 start 100 | running -
         n1 stop 100  | - -
         n1 start 100 | running -
         n1 halt 100  | - -",
    ),
    (
        "suspended to disk and resumed",
        "tap100i0",
        "n1 start 100                  | running -
         n1 config 100 lock: suspended | running -
         n1 halt 100                   | - -
         n1 start 100                  | running -
         n1 stop 100                   | - -",
    ),
    (
        "stopped and started in one process: no post-stop between",
        "tap100i0",
        "n1 start 100         | running -
         n1 hook 100 pre-stop | running -
         n1 unplug tap100i0   | unpinned - | - -
         n1 start 100         | running -
         n1 halt 100          | - -",
    ),
    (
        "the late post-stop of the run before",
        "tap100i0",
        "n1 start 100         | running -
         n1 hook 100 pre-stop | running -
         n1 unplug tap100i0   | unpinned - | - -
         n1 destroy 100       | unpinned - | - -",
    ),
    // Guests that come with somebody else's assignment in their configuration.
    (
        "clone: the hookscript, another MAC",
        "tap100i0",
        "n1 start 100   | running -
         n1 config 102 of 100 with 02:00:00:00:99:99 | running -
         n1 hook 102 pre-start refused: guest 102 has the hookscript of pve-public-ip, but no public address: is it a clone? | running -
         n1 destroy 102 | running -
         n1 halt 100    | - -",
    ),
    (
        "restored under a new number, with the MAC of the original",
        "tap100i0",
        "n1 start 100                      | running -
         n1 config 102 of 100 with its MAC | running -
         n1 hook 102 pre-start refused: guest 102 has no assignment, but the MAC 02:00:00:00:00:0a of guest 100 net0 | running -
         n1 halt 100                       | - -
         n1 hook 102 pre-start refused: guest 102 has no assignment, but the MAC 02:00:00:00:00:0a of guest 100 net0 | - -
         n1 destroy 102                    | - -",
    ),
    (
        "restored on the other node",
        "tap100i0",
        "n1 start 100                      | running -
         n2 config 102 of 100 with its MAC | running -
         n2 hook 102 pre-start refused: guest 102 has no assignment, but the MAC 02:00:00:00:00:0a of guest 100 net0 | running -
         n1 halt 100                       | - -",
    ),
    (
        "destroyed, and made again under its number",
        "tap100i0",
        "n1 start 100   | running -
         n1 halt 100    | - -
         n1 destroy 100 | - -
         n1 config 100  | - -
         n1 start 100   | running -
         n1 halt 100    | - -",
    ),
];

/// What ends without a word, and what backups and snapshots do with a guest.
pub(crate) const CRASHES_AND_BACKUPS: &[Row] = &[
    (
        "crash",
        "tap100i0",
        "n1 start 100 | running -
         n1 halt 100  | - -",
    ),
    (
        "crash that nobody notices: qmeventd is down",
        "tap100i0",
        "n1 start 100        | running -
         n1 unplug tap100i0  | unpinned - | - -
         nothing: some hours | unpinned - | - -
         n1 start 100        | running -
         n1 halt 100         | - -",
    ),
    (
        "a start that fails before there is a port",
        "tap100i0",
        "n1 hook 100 pre-start          | starting -
         nothing: the disk is not there | starting -
         n1 waits ten minutes           | starting - | - -
         n1 start 100                   | running -
         n1 halt 100                    | - -",
    ),
    (
        "a start that fails with a port",
        "tap100i0",
        "n1 hook 100 pre-start | starting -
         n1 plug tap100i0      | starting - | running -
         n1 unplug tap100i0    | starting* - | - -
         n1 waits ten minutes  | starting - | - -",
    ),
    (
        "a start that is refused",
        "tap100i0",
        "n1 config 100 of 100 with 02:00:00:00:99:99 | - -
         n1 hook 100 pre-start refused: guest 100 net0 has MAC 02:00:00:00:99:99, but the registry binds 203.0.113.10 | - -",
    ),
    (
        "stop of a guest that was never started with a hook",
        "tap100i0",
        "n1 hook 100 pre-stop  | - -
         n1 hook 100 post-stop | - -",
    ),
    (
        "backup of a stopped guest",
        "tap100i0",
        "n1 config 100 lock: backup | - -
         n1 start 100               | running -
         n1 stop 100                | - -
         n1 config 100              | - -",
    ),
    (
        "backup of a template",
        "tap100i0",
        "n1 config 100 template: 1 | - -
         n1 start 100              | running -
         n1 stop 100               | - -",
    ),
    (
        "backup in mode stop",
        "tap100i0",
        "n1 start 100               | running -
         n1 hook 100 pre-stop       | running -
         n1 unplug tap100i0         | unpinned - | - -
         n1 config 100 lock: backup | unpinned - | - -
         n1 start 100               | running -
         n1 config 100              | running -
         n1 halt 100                | - -",
    ),
    (
        "rollback to a snapshot with memory",
        "tap100i0",
        "n1 start 100                  | running -
         n1 hook 100 pre-stop          | running -
         n1 unplug tap100i0            | unpinned - | - -
         n1 config 100 lock: rollback  | unpinned - | - -
         n1 hook 100 post-stop         | - -
         n1 config 100 name: as-it-was | - -
         n1 start 100                  | running -
         n1 halt 100                   | - -",
    ),
    (
        "rollback to a snapshot with another MAC, post-stop after the configuration",
        "tap100i0",
        "n1 start 100          | running -
         n1 hook 100 pre-stop  | running -
         n1 unplug tap100i0    | unpinned - | - -
         n1 config 100 of 100 with 02:00:00:00:99:99 | unpinned - | - -
         n1 hook 100 post-stop | - -
         n1 hook 100 pre-start refused: guest 100 net0 has MAC 02:00:00:00:99:99 | - -",
    ),
];

/// From one node to the other.
pub(crate) const MIGRATION: &[Row] = &[
    (
        "live",
        "tap100i0",
        "n1 start 100                   | running -
         n1 config 100 lock: migrate    | running -
         n2 hook 100 pre-start from n1  | running incoming
         n2 plug tap100i0               | running incoming
         n2 hook 100 post-start from n1 | running incoming
         move 100 n1 n2                 | running incoming | - running announced
         n1 unplug tap100i0             | unpinned incoming | - running
         n2 config 100                  | unpinned incoming | - running
         n2 unplug tap100i0             | unpinned incoming | - -
         n2 hook 100 post-stop          | unpinned - | - -",
    ),
    (
        "live, the source is gone before the configuration moves",
        "tap100i0",
        "n1 start 100                   | running -
         n2 hook 100 pre-start from n1  | running incoming
         n2 plug tap100i0               | running incoming
         n2 hook 100 post-start from n1 | running incoming
         n1 unplug tap100i0             | unpinned incoming | - incoming
         move 100 n1 n2                 | unpinned incoming | - running announced
         n2 unplug tap100i0             | unpinned incoming | - -
         n2 hook 100 post-stop          | unpinned - | - -",
    ),
    (
        "live, aborted (no hook on the target)",
        "tap100i0",
        "n1 start 100                   | running -
         n1 config 100 lock: migrate    | running -
         n2 hook 100 pre-start from n1  | running incoming
         n2 plug tap100i0               | running incoming
         n2 hook 100 post-start from n1 | running incoming
         n2 unplug tap100i0             | running incoming
         n1 config 100                  | running incoming
         n2 waits ten minutes           | running incoming | running -
         n1 unplug tap100i0             | unpinned incoming | - -
         n1 hook 100 post-stop          | - incoming | - -",
    ),
    (
        "live, aborted (post-stop on the target while the guest runs on the source)",
        "tap100i0",
        "n1 start 100                   | running -
         n2 hook 100 pre-start from n1  | running incoming
         n2 plug tap100i0               | running incoming
         n2 hook 100 post-start from n1 | running incoming
         n2 unplug tap100i0             | running incoming
         n2 hook 100 post-stop          | running -
         n1 halt 100                    | - -",
    ),
    (
        "live, refused by the target",
        "tap100i0",
        "n1 start 100  | running -
         n1 config 100 of 100 with 02:00:00:00:99:99 | running -
         n2 hook 100 pre-start from n1 refused: guest 100 net0 has MAC 02:00:00:00:99:99 | running -
         n1 config 100 | running -
         n1 halt 100   | - -",
    ),
    (
        "offline",
        "tap100i0",
        "move 100 n1 n2 | - -
         n2 start 100   | - running
         n2 halt 100    | - -
         move 100 n2 n1 | - -",
    ),
    (
        "relocated by HA: the configuration is gone before post-stop",
        "tap100i0",
        "n1 start 100           | running -
         n1 hook 100 pre-stop   | running -
         n1 unplug tap100i0     | unpinned - | - -
         move 100 n1 n2         | unpinned - | - -
         n2 hook 100 pre-start  | unpinned starting | - starting
         n2 plug tap100i0       | unpinned starting | - running
         n2 hook 100 post-start | unpinned running announced | - running announced
         n2 unplug tap100i0     | unpinned unpinned | - -
         n2 hook 100 post-stop  | unpinned - | - -",
    ),
    (
        "recovered by HA from a dead node",
        "tap100i0",
        "n1 start 100           | running -
         n1 dies                | dead -
         move 100 n1 n2         | dead -
         n2 hook 100 pre-start  | dead starting
         n2 plug tap100i0       | dead starting | dead running
         n2 hook 100 post-start | dead running announced
         n1 boots               | bare running | - running
         n1 runs apply          | - running
         n2 halt 100            | - -",
    ),
];

/// What is changed while a guest runs: Proxmox VE calls no hook for any of it.
pub(crate) const CHANGES_WHILE_RUNNING: &[Row] = &[
    (
        "NIC unplugged and plugged in again",
        "tap110i1",
        "n1 hook 110 pre-start  | starting -
         n1 plug tap110i0       | starting - | unpinned -
         n1 plug tap110i1       | starting - | running -
         n1 hook 110 post-start | running - announced
         n1 unplug tap110i1     | unpinned -
         n1 plug tap110i1       | unpinned - | running -
         n1 unplug tap110i1     | unpinned -
         n1 halt 110            | - -",
    ),
    (
        "an address given to a NIC of a running guest, and taken away",
        "tap110i1",
        "n1 hook 110 pre-start  | starting -
         n1 plug tap110i0       | starting - | unpinned -
         n1 plug tap110i1       | starting - | running -
         n1 hook 110 post-start | running - announced
         n1 runs release 110 203.0.113.12 2001:db8:0:1::c | nobody nobody
         n1 runs assign 110 203.0.113.12 2001:db8:0:1::c --net 1 --no-hookscript | running -
         n1 unplug tap110i0     | running -
         n1 unplug tap110i1     | unpinned - | - -
         n1 hook 110 post-stop  | - -",
    ),
    (
        "another MAC",
        "tap100i0",
        "n1 start 100       | running -
         n1 unplug tap100i0 | unpinned - | - -
         n1 plug tap100i0 as 02:00:00:00:99:99 | unpinned - | running -
         n1 config 100 of 100 with 02:00:00:00:99:99 | unpinned - | running -
         n1 unplug tap100i0 | unpinned - | - -
         n1 plug tap100i0   | unpinned - | running -
         n1 config 100      | unpinned - | running -
         n1 halt 100        | - -",
    ),
    (
        "firewall on and off",
        "tap100i0",
        "n1 start 100             | running -
         n1 firewall tap100i0 on  | unpinned - | running -
         n1 firewall tap100i0 off | unpinned - | running -
         n1 halt 100              | - -",
    ),
    // LXC says nothing when a container reboots itself.
    (
        "reboot from inside: no hook, another port under the same name",
        "veth200i0",
        "n1 start 200         | running -
         n1 unplug veth200i0  | unpinned - | - -
         n1 plug veth200i0    | unpinned - | running -
         n1 hook 200 pre-stop | unpinned - | running -
         n1 halt 200          | - -",
    ),
    (
        "reboot by command",
        "veth200i0",
        "n1 start 200                 | running -
         n1 stop 200                  | - -
         n1 start 200 behind firewall | running -
         n1 halt 200                  | - -",
    ),
    (
        "a start that fails: LXC has a post-stop for it",
        "veth200i0",
        "n1 hook 200 pre-start | starting -
         n1 hook 200 post-stop | - -",
    ),
    (
        "migration by restart",
        "veth200i0",
        "n1 start 200   | running -
         n1 stop 200    | - -
         move 200 n1 n2 | - -
         n2 start 200   | - running
         n2 halt 200    | - -",
    ),
    (
        "link down and up",
        "veth200i0",
        "n1 start 200           | running -
         n1 link veth200i0 down | unpinned -
         n1 link veth200i0 up   | unpinned - | running -
         n1 halt 200            | - -",
    ),
];

/// The node itself.
pub(crate) const NODES: &[Row] = &[
    (
        "reboot of the node",
        "tap100i0",
        "n1 start 100 | running -
         n1 dies      | dead -
         n1 boots     | bare - | - -
         n1 start 100 | running -
         n1 halt 100  | - -",
    ),
    (
        "ruleset flushed",
        "tap100i0",
        "n1 start 100            | running -
         n1 sh nft flush ruleset | bare - | running -
         n1 hook 110 pre-start   | running -
         n1 hook 110 post-stop   | running -
         n1 unplug tap100i0      | unpinned - | - -
         n1 sh nft flush ruleset | bare - | - -
         n1 hook 100 post-stop   | - -",
    ),
    (
        "changed by hand",
        "tap100i0",
        "n1 hook 100 pre-start     | starting -
         n1 plug tap100i0          | starting - | running -
         n1 hook 100 post-start    | running - announced
         n1 sh ip neigh del 203.0.113.10 dev vmbr0 | odd - | running -
         n1 runs apply             | running -
         n1 sh bridge fdb del 02:00:00:00:00:0a dev tap100i0 master | unpinned - | running -
         n1 runs apply             | running -
         n1 sh nft 'delete element bridge pve-public-ip port_ip6 { \"tap100i0\" . 02:00:00:00:00:0a . 2001:db8:0:1::a }' | odd - | running -
         n1 runs apply             | running -
         n1 unplug tap100i0        | unpinned - | - -
         n1 hook 100 post-stop     | - -",
    ),
    (
        "the guard is stopped, as at an upgrade or a removal, and has missed something",
        "tap100i0",
        "n1 start 100          | running -
         n1 guard stops        | running -
         n1 unplug tap100i0    | unpinned* - | unpinned -
         n1 plug tap100i0      | unpinned* - | unpinned -
         n1 guard starts       | unpinned - | running -
         n1 guard is killed    | unpinned - | running -
         n1 unplug tap100i0    | unpinned* - | unpinned -
         n1 guard starts       | unpinned - | - -
         n1 guard is killed    | unpinned - | - -
         n1 guard starts       | unpinned - | - -
         n1 hook 100 post-stop | - -",
    ),
    (
        "pmxcfs is gone for a while",
        "tap100i0",
        "move 100 n1 n2          | - -
         n2 start 100            | - running
         n2 loses pmxcfs         | - running
         n2 hook 100 pre-start refused: the cluster file system is not mounted | - running
         n2 hook 100 post-stop refused: the cluster file system is not mounted | - running
         n2 sh nft flush ruleset | - bare* | - running
         n2 unplug tap100i0      | - bare* | - unpinned
         n2 regains pmxcfs       | - bare | - -
         n2 runs apply           | - -",
    ),
    (
        "no quorum",
        "tap100i0",
        "n1 loses quorum         | - -
         n1 start 100            | running -
         n1 sh nft flush ruleset | bare - | running -
         n1 runs apply           | running -
         n1 halt 100             | - -
         n1 regains quorum       | - -",
    ),
];
