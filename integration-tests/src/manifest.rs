//! Manifest entries in the terms of the API, for tests.

use airfleet_proto::{
    common::v1::Resources,
    registry::v1::{ManifestEntry, Namespace, Shard, manifest_entry::Kind},
};

/// A namespace that owns `<name>.` and asks for one DAG.
pub fn namespace(name: &str) -> Namespace {
    Namespace {
        name: name.to_owned(),
        owners: vec!["test".to_owned()],
        prefixes: vec![format!("{name}.")],
        demand: Some(Resources { dags: 1, ..Resources::default() }),
        ..Namespace::default()
    }
}

/// A shard with room for 4000 DAGs.
pub fn shard(name: &str) -> Shard {
    Shard { name: name.to_owned(), size: "2xlarge".to_owned(), ..Shard::default() }
}

/// As an entry of an apply.
pub fn namespace_entry(name: &str) -> ManifestEntry {
    ManifestEntry { kind: Some(Kind::Namespace(namespace(name))) }
}

/// As an entry of an apply.
pub fn shard_entry(name: &str) -> ManifestEntry {
    ManifestEntry { kind: Some(Kind::Shard(shard(name))) }
}
