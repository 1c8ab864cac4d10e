//! Registry files: anything is either a clear error or a document that survives being written and read again.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use pve_public_ip::registry::document::{Document, GuestFile, NodeFile, PoolFile, PoolsFile, parse, render};

fn round_trip<T: Document + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    match parse::<T>(Path::new("file.json"), bytes) {
        Ok(document) => {
            let text = render(&document).expect("what was read can be written");
            assert_eq!(parse::<T>(Path::new("file.json"), &text).expect("what was written can be read"), document);
        }
        Err(error) => assert!(!error.reason.is_empty() && !error.hint.is_empty()),
    }
}

fuzz_target!(|bytes: &[u8]| {
    round_trip::<PoolsFile>(bytes);
    round_trip::<PoolFile>(bytes);
    round_trip::<GuestFile>(bytes);
    round_trip::<NodeFile>(bytes);
});
