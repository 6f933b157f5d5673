//! What is declared, as the registry tells it.
//!
//! Responsible for reading the registry's messages into [`Event`]s, and for watching it
//! ([`watch`]): one stream, resumed at the recorded revision, from whichever replica answers.
//!
//! Invariant: an entry that cannot be read is told and left out, never guessed; the namespace or
//! shard then stays as it was. It must not know what becomes of the entries.

pub(crate) mod watch;

use std::sync::Arc;

use airfleet_domain::{
    ids::{NamespaceName, Prefix, Revision, ShardName},
    manifest,
};
use airfleet_proto::registry::v1 as wire;

use crate::store::{Declared, Needs, Rules};

/// A namespace as declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Namespace {
    /// Its name.
    pub(crate) name: NamespaceName,
    /// Another one for each registration.
    pub(crate) uid: String,
    /// Revision of the manifest at which it last changed.
    pub(crate) revision: Revision,
    /// Starts of the dag_ids that it owns, sorted, each once.
    pub(crate) prefixes: Vec<Prefix>,
    /// What it needs.
    pub(crate) needs: Needs,
    /// What it brings to its shard.
    pub(crate) workload: Declared,
}

/// A shard as declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shard {
    /// Its name.
    pub(crate) name: ShardName,
    /// Another one for each registration.
    pub(crate) uid: String,
    /// Revision of the manifest at which it last changed.
    pub(crate) revision: Revision,
    /// As declared.
    pub(crate) manifest: Arc<manifest::Shard>,
}

/// Entries that belong together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Namespaces that there are.
    pub(crate) namespaces: Vec<Namespace>,
    /// Shards that there are.
    pub(crate) shards: Vec<Shard>,
    /// Namespaces that are no longer declared.
    pub(crate) deleted_namespaces: Vec<NamespaceName>,
    /// Shards that are no longer declared.
    pub(crate) deleted_shards: Vec<ShardName>,
}

/// What the registry tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// A piece of everything. What no piece has is not declared.
    Snapshot {
        /// The entries.
        piece: Piece,
        /// Whether it is the first piece.
        first: bool,
        /// Whether it is the last piece.
        last: bool,
        /// The manifest is as of this revision after the last piece.
        revision: Revision,
    },
    /// What changed.
    Change {
        /// The entries.
        piece: Piece,
        /// The manifest is as of this revision.
        revision: Revision,
    },
    /// Nothing changed up to here.
    Progress {
        /// The manifest is as of this revision.
        revision: Revision,
    },
}

/// An entry that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the registry sent an entry {name:?} that this router cannot read: {detail}")]
pub(crate) struct Unreadable {
    name: String,
    detail: String,
}

/// Reads a message; entries that cannot be read go to `refuse`.
pub(crate) fn read(
    message: wire::WatchManifestResponse,
    mut refuse: impl FnMut(Unreadable),
) -> Option<Event> {
    use wire::watch_manifest_response::Event as Wire;
    let revision = Revision(message.revision);
    Some(match message.event? {
        Wire::Snapshot(snapshot) => Event::Snapshot {
            piece: piece(snapshot.entries, &mut refuse),
            first: snapshot.first,
            last: snapshot.last,
            revision,
        },
        Wire::Change(change) => {
            let mut piece = piece(change.upserts, &mut refuse);
            piece.deleted_namespaces = names(change.deleted_namespaces, &mut refuse);
            piece.deleted_shards = names(change.deleted_shards, &mut refuse);
            Event::Change { piece, revision }
        }
        Wire::Progress(_) => Event::Progress { revision },
    })
}

fn piece(entries: Vec<wire::ManifestEntry>, refuse: &mut impl FnMut(Unreadable)) -> Piece {
    use wire::manifest_entry::Kind;
    let mut piece = Piece::default();
    for entry in entries {
        match entry.kind {
            Some(Kind::Namespace(entry)) => {
                let name = entry.name.clone();
                match namespace(entry) {
                    Ok(namespace) => piece.namespaces.push(namespace),
                    Err(detail) => refuse(Unreadable { name, detail }),
                }
            }
            Some(Kind::Shard(entry)) => {
                let name = entry.name.clone();
                match shard(entry) {
                    Ok(shard) => piece.shards.push(shard),
                    Err(detail) => refuse(Unreadable { name, detail }),
                }
            }
            None => refuse(Unreadable {
                name: String::new(),
                detail: "it is neither a namespace nor a shard".into(),
            }),
        }
    }
    piece
}

fn namespace(entry: wire::Namespace) -> Result<Namespace, String> {
    let name = entry.name.parse().map_err(text)?;
    let (uid, revision) = (entry.uid.clone(), Revision(entry.revision));
    let spec = manifest::Namespace::try_from(entry).map_err(text)?.spec;
    let mut prefixes: Vec<Prefix> = spec
        .prefixes
        .iter()
        .map(|prefix| prefix.parse().map_err(text))
        .collect::<Result<_, _>>()?;
    prefixes.sort();
    prefixes.dedup();
    let workload = Declared::from(&spec.workload());
    let rules = Arc::new(Rules::try_from(spec.placement)?);
    let needs = Needs { demand: spec.demand, rules };
    Ok(Namespace { name, uid, revision, prefixes, needs, workload })
}

fn shard(entry: wire::Shard) -> Result<Shard, String> {
    let name = entry.name.parse().map_err(text)?;
    let (uid, revision) = (entry.uid.clone(), Revision(entry.revision));
    let manifest = Arc::new(manifest::Shard::try_from(entry).map_err(text)?);
    Ok(Shard { name, uid, revision, manifest })
}

fn names<T: std::str::FromStr<Err: std::fmt::Display>>(
    names: Vec<String>,
    refuse: &mut impl FnMut(Unreadable),
) -> Vec<T> {
    let mut read = Vec::with_capacity(names.len());
    for name in names {
        match name.parse() {
            Ok(parsed) => read.push(parsed),
            Err(error) => refuse(Unreadable { name, detail: text(error) }),
        }
    }
    read
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl Piece {
    /// Number of entries.
    pub(crate) fn len(&self) -> usize {
        self.namespaces.len()
            + self.shards.len()
            + self.deleted_namespaces.len()
            + self.deleted_shards.len()
    }
}
