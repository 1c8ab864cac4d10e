//! Lines for the journal, on standard error: systemd adds the time, and reads the level that a line begins with. Nothing that a
//! caller sends is written without being escaped, and no secret ever.

use std::io::Write as _;

use pve_public_ip_core::model::text::escaped;

/// How much a line matters: the numbers of syslog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// It cannot do its work.
    Error = 3,
    /// Somebody should look.
    Warning = 4,
    /// It goes on as it should.
    Info = 6,
}

/// Writes a line. If nobody reads them, the daemon works on.
pub fn line(level: Level, text: &str) {
    let mut error = std::io::stderr().lock();
    // Under systemd only: at a terminal the number would be noise.
    let prefix = std::env::var_os("JOURNAL_STREAM").map(|_| format!("<{}>", level as u8)).unwrap_or_default();
    writeln!(error, "{prefix}{}", escaped(text)).unwrap_or_default();
}
