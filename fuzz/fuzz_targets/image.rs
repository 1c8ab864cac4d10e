//! Whatever a cloud-init volume holds, reading it ends: with files that fit into it, or with a reason.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use pve_public_ip::guest::storage::Format;
use pve_public_ip::system::image::Image;

fuzz_target!(|bytes: &[u8]| {
    // The first sectors of an ISO 9660 file system are not its own.
    let (format, bytes) = match bytes.strip_prefix(b"QFI\xfb") {
        Some(_) => (Format::Qcow2, bytes.to_vec()),
        None => (Format::Raw, [&[0; 16 * 2048], bytes].concat()),
    };
    let Ok(image) = Image::read(Path::new("volume"), Box::new(bytes), format) else { return };
    for name in image.names() {
        match image.file(name) {
            Ok(content) => assert!(content.expect("a name of the image").len() <= 1 << 20),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
});
