//! Assignments read from a file of the caller's, for many guests at once.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::rows;
use crate::model::text::unfit_name;
use crate::model::{NicId, Prefix, Vmid};

/// An address that a guest shall hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Where it stands in the file: `line 7`.
    pub place: String,
    /// The guest.
    pub vmid: Vmid,
    /// The address or prefix.
    pub address: Prefix,
    /// The NIC that gets it.
    pub interface: NicId,
    /// Customer or department.
    pub organization: Option<String>,
}

/// What a row says.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    vmid: Option<Vmid>,
    address: Option<Prefix>,
    interface: Option<NicId>,
    organization: Option<String>,
}

/// The columns of a CSV file.
pub const COLUMNS: [&str; 4] = ["vmid", "address", "interface", "organization"];

/// Reads a file of assignments: JSON if it begins like that, else CSV with a line of names first. The error names the line, or
/// the place in the JSON. Without an interface it is the first.
pub fn read_wishes(text: &str) -> Result<Vec<Wish>, String> {
    let rows = if rows::are_json(text) { rows::of_json(text, "assignments")? } else { rows_of_csv(text)? };
    let mut seen = BTreeMap::new();
    let mut wishes = Vec::new();
    for (place, Row { vmid, address, interface, organization }) in rows {
        let vmid = vmid.ok_or_else(|| format!("{place}: there is no vmid"))?;
        let address = address.ok_or_else(|| format!("{place}: there is no address"))?;
        let interface = interface.unwrap_or(NicId::FIRST);
        if let Some((other, first)) = seen.insert(address, (vmid, place.clone())) {
            let whose = if other == vmid { String::new() } else { format!(", for guest {other}") };
            return Err(format!("{place}: {address} is in {first} already{whose}"));
        }
        if let Some(why) = organization.as_deref().and_then(unfit_name) {
            return Err(format!("{place}: organization: {why}"));
        }
        wishes.push(Wish { place, vmid, address, interface, organization });
    }
    if wishes.is_empty() { Err("there is no assignment in it".to_owned()) } else { Ok(wishes) }
}

fn rows_of_csv(text: &str) -> Result<Vec<(String, Row)>, String> {
    rows::of_csv(text, &COLUMNS, |row: &mut Row, name, cell| {
        match name {
            "vmid" => row.vmid = Some(cell.parse().map_err(|error| format!("{error}"))?),
            "address" => row.address = Some(cell.parse().map_err(|error| format!("{error}"))?),
            "interface" => row.interface = Some(cell.parse().map_err(|error| format!("{error}"))?),
            _ => row.organization = Some(cell.to_owned()),
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_and_json_say_the_same() {
        let csv = "vmid,address,interface,organization\n100,203.0.113.10,,acme\n# a remark\n101,2001:db8::/64,net1,\n";
        let json = r#"{"assignments": [{"vmid": 100, "address": "203.0.113.10/32", "organization": "acme"},
            {"vmid": 101, "address": "2001:db8::/64", "interface": "net1"}]}"#;
        let read = |text| -> Vec<Wish> {
            let wishes = read_wishes(text).unwrap().into_iter();
            wishes.map(|wish| Wish { place: String::new(), ..wish }).collect()
        };
        assert_eq!(read(csv), read(json));
        assert_eq!(read_wishes(csv).unwrap()[1].place, "line 4");
    }

    #[test]
    fn what_is_wrong_is_named_by_its_line() {
        for (text, reason) in [
            ("", "there is no assignment in it"),
            ("100,203.0.113.10\n", "line 1: `100` is no column; the first line names them: vmid,address"),
            ("vmid\n100\n", "line 2: there is no address"),
            ("address\n203.0.113.10\n", "line 2: there is no vmid"),
            ("vmid,address\n7,203.0.113.10\n", "line 2: vmid: "),
            ("vmid,address\n100,203.0.113\n", "line 2: address: "),
            ("vmid,address,interface\n100,203.0.113.10,eth0\n", "line 2: interface: "),
            (
                "vmid,address\n100,203.0.113.10\n101,203.0.113.10\n",
                "line 3: 203.0.113.10 is in line 2 already, for guest 100",
            ),
            (r#"[{"vmid":100,"adress":"203.0.113.10"}]"#, "entry 1: unknown field `adress`"),
            (
                r#"[{"vmid":100,"address":"203.0.113.10","organization":"a\u0007"}]"#,
                "entry 1: organization: it has a line break or another control character",
            ),
            ("{}", "neither a list of entries nor an object with `assignments`"),
        ] {
            let error = read_wishes(text).unwrap_err();
            assert!(error.contains(reason), "{text:?}: {error}");
        }
    }
}
