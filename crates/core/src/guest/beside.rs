//! Ways by which a guest is on a network without a port of a bridge: no filter of a bridge sees what it sends there.

use super::GuestConfig;
use crate::model::GuestKind;

/// Networks of `lxc.net.N.type` that are on a card of the node, or are the node's own.
/// Source: `lxc.container.conf(5)`, NETWORK.
const BESIDE: [&str; 5] = ["macvlan", "ipvlan", "phys", "vlan", "none"];

/// Back ends of QEMU that lead to no network of the node's: what comes by them has the node's own address, or stays on it.
/// Source: `qemu-system(1)`, `-netdev`.
const INSIDE: [&str; 4] = ["user", "passt", "none", "hubport"];

impl GuestConfig {
    /// What of the configuration puts the guest on a network beside all bridges: lines of `lxc.net`, options of `args`.
    pub fn beside_bridges(&self) -> Vec<String> {
        match self.kind {
            GuestKind::Lxc => {
                let types = self.lines.iter().filter(|(key, value)| {
                    key.starts_with("lxc.net.")
                        && key.rsplit('.').next() == Some("type")
                        && BESIDE.contains(&value.as_str())
                });
                types.map(|(key, value)| format!("{key}: {value}")).collect()
            }
            GuestKind::Qemu => self.lines.get("args").map(|args| network_options(args)).unwrap_or_default(),
        }
    }

    /// Devices of the node that the guest has for itself. Which of them is a network card, the configuration does not say.
    pub fn passed_through(&self) -> Vec<String> {
        let is_device = |key: &str| {
            let number = key.strip_prefix("hostpci");
            number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
        };
        let devices = self.lines.iter().filter(|(key, _)| self.kind == GuestKind::Qemu && is_device(key));
        devices.map(|(key, value)| format!("{key}: {value}")).collect()
    }
}

/// The options of a command line of QEMU that are a network, with their values.
fn network_options(args: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut words = args.split_whitespace();
    while let Some(word) = words.next() {
        let option = word.trim_start_matches('-');
        if !word.starts_with('-') || !["netdev", "nic", "net"].contains(&option) {
            continue;
        }
        let value = words.next().unwrap_or_default();
        let bare = value.trim_matches(['\'', '"']);
        let kind = bare.strip_prefix("type=").unwrap_or(bare).split(',').next().unwrap_or_default();
        // `-net nic` is the guest's side of another option.
        let is_inside = INSIDE.contains(&kind) || (option == "net" && kind == "nic");
        if !is_inside {
            found.push(format!("{word} {value}"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: GuestKind, text: &str) -> (Vec<String>, Vec<String>) {
        let config = GuestConfig::parse(kind, text.as_bytes());
        (config.beside_bridges(), config.passed_through())
    }

    #[test]
    fn containers_on_the_card() {
        let text = "net0: name=eth0,bridge=vmbr0,hwaddr=02:00:00:00:00:01\nlxc.net.0.type: veth\nlxc.net.1.type: macvlan\n\
                    lxc.net.2.type = ipvlan\nlxc.net.2.link = eno1\nlxc.net.3.type: empty\nlxc.net.4.type: none\nlxc.cgroup.x: macvlan\n\
                    [snap]\nlxc.net.5.type: phys\n";
        let expected = ["lxc.net.1.type: macvlan", "lxc.net.2.type: ipvlan", "lxc.net.4.type: none"];
        assert_eq!(of(GuestKind::Lxc, text), (expected.map(str::to_owned).to_vec(), Vec::new()));
        assert_eq!(of(GuestKind::Qemu, "lxc.net.1.type: macvlan\n").0, Vec::<String>::new());
    }

    #[test]
    fn machines_with_networks_of_their_own() {
        for (args, expected) in [
            ("-cpu host,+kvm_pv_eoi -nodefaults", vec![]),
            ("-netdev tap,id=n1,ifname=tapx -device virtio-net,netdev=n1", vec!["-netdev tap,id=n1,ifname=tapx"]),
            ("-netdev type=bridge,br=vmbr0,id=a", vec!["-netdev type=bridge,br=vmbr0,id=a"]),
            ("-netdev user,id=n1,hostfwd=tcp::2222-:22", vec![]),
            ("-nic none", vec![]),
            ("-net nic -net tap,ifname=tapx", vec!["-net tap,ifname=tapx"]),
            ("-nic model=virtio,type=tap", vec!["-nic model=virtio,type=tap"]),
            ("-netdev", vec!["-netdev "]),
            ("-netdev '{\"type\":\"tap\",\"id\":\"n\"}'", vec!["-netdev '{\"type\":\"tap\",\"id\":\"n\"}'"]),
            ("-name net -netdevice x", vec![]),
        ] {
            let found = of(GuestKind::Qemu, &format!("args: {args}\n")).0;
            assert_eq!(found, expected, "{args}");
        }
    }

    #[test]
    fn devices_of_the_node() {
        let text = "hostpci0: 0000:03:00.0,pcie=1\nhostpci1: mapping=card\nhostpcix: 1\nscsihw: virtio-scsi-pci\n";
        let expected = vec!["hostpci0: 0000:03:00.0,pcie=1".to_owned(), "hostpci1: mapping=card".to_owned()];
        assert_eq!(of(GuestKind::Qemu, text), (Vec::new(), expected));
        assert_eq!(of(GuestKind::Lxc, text), (Vec::new(), Vec::new()));
    }
}
