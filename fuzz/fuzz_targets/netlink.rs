//! Attributes from the kernel are walked without ever reading beyond the message.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pve_public_ip::system::netlink::{attributes, text};

fn walk(bytes: &[u8], depth: u8) {
    for (_, value) in attributes(bytes) {
        let _ = text(value);
        if depth > 0 {
            walk(value, depth - 1);
        }
    }
}

fuzz_target!(|bytes: &[u8]| walk(bytes, 3));
