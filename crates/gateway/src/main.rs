//! `pve-public-ip-gateway`.

use std::process::ExitCode;

fn main() -> ExitCode {
    pve_public_ip_gateway::server::main()
}
