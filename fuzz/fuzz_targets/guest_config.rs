//! The guest configuration parser takes anything and never lets a section after the first one through.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pve_public_ip::guest::GuestConfig;
use pve_public_ip::model::GuestKind;

fuzz_target!(|bytes: &[u8]| {
    for kind in [GuestKind::Qemu, GuestKind::Lxc] {
        let config = GuestConfig::parse(kind, bytes);
        let mut longer = bytes.to_vec();
        longer.extend_from_slice(b"\n[snapshot]\nnet0: virtio=02:00:00:00:00:01,bridge=vmbr9\nhookscript: local:snippets/x\n");
        assert_eq!(config, GuestConfig::parse(kind, &longer), "a snapshot changed what runs");
    }
});
