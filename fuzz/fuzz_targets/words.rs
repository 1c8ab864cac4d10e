//! Every word that parses prints in one spelling, which parses to the same.
#![no_main]

use std::fmt::{Debug, Display};
use std::str::FromStr;

use libfuzzer_sys::fuzz_target;
use pve_public_ip::model::{IfName, MacAddr, NicId, NodeName, PoolName, Prefix, Vmid};

fn one_spelling<T: FromStr + Display + Debug + PartialEq>(text: &str) {
    if let Ok(word) = text.parse::<T>() {
        let printed = word.to_string();
        assert_eq!(printed.parse::<T>().ok().as_ref(), Some(&word), "{text:?} printed as {printed:?}");
    }
}

fuzz_target!(|text: &str| {
    one_spelling::<MacAddr>(text);
    one_spelling::<Prefix>(text);
    one_spelling::<Vmid>(text);
    one_spelling::<NicId>(text);
    one_spelling::<IfName>(text);
    one_spelling::<PoolName>(text);
    one_spelling::<NodeName>(text);
});
