//! What `proto/pve_public_ip/v1/gateway.proto` says, as Rust.

/// What the compiler of the contract has written.
#[allow(
    missing_docs,
    unreachable_pub,
    unused_lifetimes,
    dead_code,
    unused_imports,
    unsafe_code,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes,
    clippy::unwrap_used,
    reason = "the generator's style is not ours"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/contract.rs"));
}

pub use generated::pve_public_ip::v1::*;

/// The contract as descriptors, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/reflection.bin"));

/// A call of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Such as `pve_public_ip.v1.VPSGatewayService`.
    pub service: &'static str,
    /// Such as `AllocatePublicIP`.
    pub method: &'static str,
    /// The two names in JSON of each field of its request: `vps_id` and `vpsId`.
    pub fields: &'static [(&'static str, &'static str)],
}

/// All calls.
pub const CALLS: &[Call] = include!(concat!(env!("OUT_DIR"), "/calls.rs"));

/// The service for panels and automation.
pub const GATEWAY: &str = "pve_public_ip.v1.VPSGatewayService";

/// The service for the operator of the cluster.
pub const SUPERADMIN: &str = "pve_public_ip.v1.SuperadminService";

impl Call {
    /// The call of an HTTP path: `/SERVICE/METHOD`.
    pub fn of_path(path: &str) -> Option<&'static Self> {
        let (service, method) = path.strip_prefix('/')?.split_once('/')?;
        CALLS.iter().find(|call| call.service == service && call.method == method)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_every_call_and_its_fields() {
        assert_eq!(CALLS.iter().filter(|call| call.service == GATEWAY).count(), 6);
        assert_eq!(CALLS.iter().filter(|call| call.service == SUPERADMIN).count(), 11);
        assert_eq!(CALLS.len(), 17);
        let call = Call::of_path("/pve_public_ip.v1.VPSGatewayService/AllocatePublicIP").unwrap();
        assert!(call.fields.contains(&("mac_address", "macAddress")), "{call:?}");
        for path in ["", "/", "AllocatePublicIP", "/pve_public_ip.v1.VPSGatewayService/allocatePublicIP", "/a/b/c"] {
            assert_eq!(Call::of_path(path), None, "{path}");
        }
    }
}
