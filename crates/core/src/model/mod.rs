//! The words of the project as types: what enters as text becomes one of these at the door.
//!
//! Every type here parses strictly (`FromStr`), prints in exactly one spelling (`Display`) and is a plain
//! string in JSON. Nothing in this module does input or output.

pub(crate) mod address;
pub(crate) mod again;
mod amount;
mod family;
mod guest;
mod mac;
mod missing;
mod moment;
mod names;
pub mod once;
pub mod problem;
mod severity;
pub mod text;

pub use address::{Prefix, PrefixError};
pub use amount::{Amount, EXACT};
pub use family::Family;
pub use guest::{GuestKind, NicId, NicIdError, Vmid, VmidError};
pub use mac::{MacAddr, MacError};
pub use missing::Missing;
pub use moment::{CoolDown, CoolDownError, Moment, Timestamp, TimestampError};
pub use names::{GroupName, GroupNameError, IfName, IfNameError, NodeName, NodeNameError, PoolName, PoolNameError};
pub use problem::{CODES, Code, Problem, Subject};
pub use severity::Severity;

/// Gives a newtype its JSON form: the same string that `Display` prints and `FromStr` reads.
macro_rules! string_in_json {
    ($type:ty, $schema:expr) => {
        $crate::model::string_in_json!(@ $type, $schema, |text| text.parse());
    };
    // Of a type whose values stand in a file again and again.
    (repeated $type:ty, $schema:expr) => {
        $crate::model::string_in_json!(@ $type, $schema, |text| {
            std::thread_local! {
                static LAST: $crate::model::again::Last<$type> = const { $crate::model::again::Last::new(None) };
            }
            $crate::model::again::parsed(&LAST, text)
        });
    };
    (@ $type:ty, $schema:expr, |$text:ident| $parsed:expr) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                /// Reads the text where it stands: of a hundred thousand addresses none is copied first.
                struct Text;

                impl serde::de::Visitor<'_> for Text {
                    type Value = $type;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("a string")
                    }

                    fn visit_str<E: serde::de::Error>(self, $text: &str) -> Result<$type, E> {
                        $parsed.map_err(E::custom)
                    }
                }

                deserializer.deserialize_str(Text)
            }
        }

        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let schema: schemars::Schema = $schema;
                schema
            }
        }
    };
}
pub(crate) use string_in_json;
