//! Writes what is generated from the command line and the file types: manual page, shell completions, JSON Schemas.
//!
//! Run by the package build: `cargo run --example docs -- DIRECTORY`.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;

mod pages;

#[expect(clippy::disallowed_methods, reason = "output of a build, not of the program")]
fn main() -> anyhow::Result<()> {
    let directory = std::env::args_os().nth(1).map(PathBuf::from).context("usage: docs DIRECTORY")?;
    for (name, content) in pages::all()? {
        let path = directory.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
        }
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
