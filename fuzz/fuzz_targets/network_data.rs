//! Whatever a guest's network data is, it is judged: each finding has a sentence and a hint, and what says nothing of the
//! guest's address never passes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pve_public_ip::cloudinit::{self, Contents, Resolver};
use pve_public_ip::guest::GuestConfig;
use pve_public_ip::model::GuestKind;
use pve_public_ip::registry::document::{GuestFile, PoolsFile};

fuzz_target!(|document: &[u8]| {
    let config = "ide2: local:100/vm-100-cloudinit.raw\nnet0: virtio=02:00:00:AA:BB:CC,bridge=vmbr0\n";
    let config = GuestConfig::parse(GuestKind::Qemu, config.as_bytes());
    let guest: GuestFile = serde_json::from_str(
        r#"{"version":1,"vmid":100,"interfaces":{"net0":{"mac":"02:00:00:aa:bb:cc","addresses":[
            {"address":"203.0.113.10/32","pool":"a","gateway":"198.51.100.254","assigned_at":"2026-11-22T10:00:00Z"}]}}}"#,
    )
    .expect("a guest");
    let wanted = cloudinit::wanted(&guest, &PoolsFile::default(), &config, &Resolver::default()).expect("one drive");
    let meta = Some(b"instance-id: 1".to_vec());
    let contents = Contents { label: "cidata".to_owned(), network: Some(document.to_vec()), meta };
    let findings = cloudinit::check(&guest, &config, &wanted, &contents);
    for finding in &findings {
        assert!(!finding.sentence.is_empty() && !finding.hint.is_empty());
    }
    let text = String::from_utf8_lossy(document);
    assert!(text.contains("203.0.113.10") || text.contains('\\') || !findings.is_empty(), "nothing said about it passes");
});
