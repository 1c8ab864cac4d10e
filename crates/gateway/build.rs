//! Makes Rust of the contract: messages, the traits of the services, the descriptors that reflection answers with, and a table
//! of the calls.

#![allow(clippy::disallowed_methods, reason = "a build script writes what the compiler reads next")]

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The contract, as its importers name it.
const CONTRACT: &str = "pve_public_ip/v1/gateway.proto";

fn main() -> Result<(), Box<dyn Error>> {
    let directory = Path::new("../../proto");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let descriptors = out.join("contract.bin");
    let mut compiler = protox::Compiler::new([directory])?;
    compiler.include_imports(true).include_source_info(true).open_file(CONTRACT)?;
    std::fs::write(&descriptors, compiler.encode_file_descriptor_set())?;
    connectrpc_build::Config::new()
        .files(&[CONTRACT])
        .descriptor_set(&descriptors)
        .include_file("contract.rs")
        .compile()?;

    // Without the comments, which reflection has no use for.
    let mut compiler = protox::Compiler::new([directory])?;
    compiler.include_imports(true).open_file(CONTRACT)?;
    std::fs::write(out.join("reflection.bin"), compiler.encode_file_descriptor_set())?;

    // Each call: service, method, and the two names in JSON of each field of its request.
    let set = compiler.file_descriptor_set();
    let mut calls = String::from("&[\n");
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                let wanted = method.input_type().rsplit('.').next().unwrap_or_default();
                let message = file.message_type.iter().find(|message| message.name() == wanted);
                let message = message.ok_or_else(|| format!("{CONTRACT} has no message {wanted}"))?;
                let fields: Vec<_> = message.field.iter().map(|field| (field.name(), field.json_name())).collect();
                let full = format!("{}.{}", file.package(), service.name());
                writeln!(calls, "    Call {{ service: {full:?}, method: {:?}, fields: &{fields:?} }},", method.name())?;
            }
        }
    }
    calls.push(']');
    std::fs::write(out.join("calls.rs"), calls)?;
    println!("cargo::rerun-if-changed={}", directory.join(CONTRACT).display());
    println!("cargo::rerun-if-changed=build.rs");
    Ok(())
}
