//! `schema`: the JSON Schemas of files, of answers, and of the API's lines.

use serde_json::{Map, Value, json};

use super::answers::{self, SchemaShown};
use super::output::Output;
use crate::audit::Entry;
use crate::partition::{Declared, Plan};
use crate::registry::document::{GuestFile, NodeFile, PoolFile, PoolsFile, ReleasedFile};
use crate::registry::layout::Layout;
use crate::reply::Reply;
use crate::request;

/// Files that have a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum SchemaFile {
    /// pools.json
    Pools,
    /// pools/NAME.json
    Pool,
    /// guests/VMID.json
    Guest,
    /// released.json
    Released,
    /// nodes/NODE.json
    Node,
    /// A file for `pool create --profile`
    Profile,
    /// A line of the audit log
    Audit,
    /// A plan of `partition plan`
    Partition,
    /// A file for `partition --from`
    Labels,
    /// A line to `serve`: a request of the API
    Request,
    /// A line from `serve`: a reply of the API
    Reply,
    /// The JSON output of each command, by its name
    Output,
}

pub(super) fn schema(file: Option<SchemaFile>) -> Output {
    if file == Some(SchemaFile::Output) {
        let all = answers::schemas().into_iter();
        return shown_schema(all.map(|(name, schema)| (name.to_owned(), schema)).collect());
    }
    let one = |file| match file {
        SchemaFile::Pools => schemars::schema_for!(PoolsFile),
        SchemaFile::Pool => schemars::schema_for!(PoolFile),
        SchemaFile::Guest => schemars::schema_for!(GuestFile),
        SchemaFile::Released => schemars::schema_for!(ReleasedFile),
        SchemaFile::Node => schemars::schema_for!(NodeFile),
        SchemaFile::Profile => schemars::schema_for!(Layout),
        SchemaFile::Audit => schemars::schema_for!(Entry),
        SchemaFile::Partition => schemars::schema_for!(Plan),
        SchemaFile::Labels => schemars::schema_for!(Declared),
        SchemaFile::Request => schemars::schema_for!(request::Line<'_>),
        SchemaFile::Reply => schemars::schema_for!(Reply),
        SchemaFile::Output => schemars::schema_for!(std::collections::BTreeMap<String, schemars::Schema>),
    };
    if let Some(file) = file {
        let Value::Object(schema) = one(file).to_value() else {
            return Output::new("", Value::Null);
        };
        return shown_schema(schema);
    }
    let all = [
        ("pools.json", SchemaFile::Pools),
        ("pools/NAME.json", SchemaFile::Pool),
        ("guests/VMID.json", SchemaFile::Guest),
        ("released.json", SchemaFile::Released),
        ("nodes/NODE.json", SchemaFile::Node),
        ("profile", SchemaFile::Profile),
        ("audit.log", SchemaFile::Audit),
        ("partition", SchemaFile::Partition),
        ("labels", SchemaFile::Labels),
        ("request", SchemaFile::Request),
        ("reply", SchemaFile::Reply),
    ];
    shown_schema(all.into_iter().map(|(name, file)| (name.to_owned(), one(file).to_value())).collect())
}

fn shown_schema(schema: Map<String, Value>) -> Output {
    let text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    Output::new(text, json!(SchemaShown { schema }))
}
