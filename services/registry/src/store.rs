//! What the registry must not forget: the manifest and every change that made it.
//!
//! Responsible for the tables in `migrations/`, for the one transaction in which the manifest
//! changes ([`Store::write`]), and for reading it by name, by page, whole, and by revision.
//!
//! Invariants: no prefix of a namespace starts with one of another, and no two namespaces have a
//! pool, variable or connection of one name; the revision grows by one with
//! every transaction that changes something, and by nothing else; every change has exactly one
//! event, written in its transaction; the indexes by label, owner and prefix say what the entries
//! say.
//!
//! It must not know who may do what, nor why. No row type leaves this module.

mod events;
mod maintain;
mod names;
mod page;
mod prefixes;
mod read;
mod requests;
mod write;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use airfleet_domain::ids::Revision;
use airfleet_domain::manifest::{Entry, Namespace, Shard};
use airfleet_sql::{Db, Migration, Row, Tx, params, write_tx};
use serde::{Deserialize, Serialize};

pub(crate) use self::{
    events::{AuditEvent, AuditFilter, Change, Revised},
    maintain::Retention,
    names::{Sort, Taken},
    page::Filter,
    prefixes::Overlap,
    read::{Resume, Snapshot},
    write::{Action, Idempotency, Item, Outcome, Write, WriteError},
};

/// The tables, in order of version.
const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "entries, their indexes, events and requests",
        sql: include_str!("../migrations/0001_initial.sql"),
    },
    Migration {
        version: 2,
        name: "names of pools, variables and connections",
        sql: include_str!("../migrations/0002_names.sql"),
    },
];

/// Most names in one `IN (…)`.
const NAMES_MAX: usize = 500;

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The database could not.
    #[error("the registry's store failed")]
    Database(#[from] airfleet_sql::Error),
    /// The tables have not been brought up to date yet, because the database is away.
    #[error("the registry's store is not ready yet")]
    NotReady,
}

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// A namespace.
    Namespace,
    /// A shard.
    Shard,
}

impl Kind {
    /// Its word, in the database and on the wire.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Namespace => "namespace",
            Self::Shard => "shard",
        }
    }

    /// The kind of that word.
    pub(crate) fn from_word(word: &str) -> Option<Self> {
        [Self::Namespace, Self::Shard].into_iter().find(|kind| kind.as_str() == word)
    }
}

/// Which entry.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Key {
    /// What it is.
    pub(crate) kind: Kind,
    /// Its name.
    pub(crate) name: String,
}

impl Key {
    /// The key of an entry.
    pub(crate) fn of(entry: &Entry) -> Self {
        let kind = match entry {
            Entry::Namespace(_) => Kind::Namespace,
            Entry::Shard(_) => Kind::Shard,
        };
        Self { kind, name: entry.name().to_owned() }
    }
}

/// An entry of the manifest and what the registry knows of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    /// What was declared.
    pub(crate) entry: Entry,
    /// Tells it from others of the same name, before and after it.
    pub(crate) uid: String,
    /// At which it last changed.
    pub(crate) revision: Revision,
    /// When it was registered, in microseconds since 1970.
    pub(crate) created_at: i64,
    /// When it last changed, in microseconds since 1970.
    pub(crate) updated_at: i64,
}

impl Stored {
    /// Which entry it is.
    pub(crate) fn key(&self) -> Key {
        Key::of(&self.entry)
    }

    /// Changes with every change, and never comes back.
    pub(crate) fn etag(&self) -> String {
        let start = self.uid.get(..8).unwrap_or(&self.uid);
        format!("{start}-{:x}", self.revision.0)
    }
}

/// Where the store stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Head {
    /// Revision of the manifest.
    pub(crate) revision: Revision,
    /// Changes so far.
    pub(crate) sequence: i64,
    /// Namespaces registered.
    pub(crate) namespaces: i64,
    /// Shards registered.
    pub(crate) shards: i64,
    /// Every event after this revision is kept.
    pub(crate) events_floor: Revision,
}

/// The tables of a registry.
#[derive(Debug)]
pub(crate) struct Store {
    db: Db,
    prepared: AtomicBool,
    /// Every write raises the one revision, so writes of one replica would only make each other
    /// run again. Speeds things up; correctness is the database's.
    writing: tokio::sync::Mutex<()>,
}

impl Store {
    /// The tables in this database. Nothing is asked of it yet.
    pub(crate) fn new(db: Db) -> Self {
        Self { db, prepared: AtomicBool::new(false), writing: tokio::sync::Mutex::default() }
    }

    /// Creates what is missing. Several replicas may do so at once.
    pub(crate) async fn prepare(&self) -> Result<()> {
        self.db.migrate("registry", MIGRATIONS).await?;
        // Not from zero: where a store is lost and begun anew, its first revision is past those
        // that watchers of the old one hold, and they are told to start over.
        let first = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(1, |age| i64::try_from(age.as_secs()).unwrap_or(1));
        write_tx!(self.db, |tx| -> airfleet_sql::Result<()> {
            tx.execute(
                "INSERT INTO registry_state
                    (id, revision, sequence, namespaces, shards, events_floor)
                 VALUES (1, $1, 0, 0, 0, $1)
                 ON CONFLICT (id) DO NOTHING",
                params![first],
            )
            .await?;
            Ok(())
        })?;
        self.prepared.store(true, Ordering::Release);
        Ok(())
    }

    /// What the database did so far.
    pub(crate) fn counters(&self) -> airfleet_sql::Counters {
        self.db.counters()
    }

    fn db(&self) -> Result<&Db> {
        if self.prepared.load(Ordering::Acquire) { Ok(&self.db) } else { Err(Error::NotReady) }
    }

    async fn read(&self) -> Result<Tx> {
        Ok(self.db()?.read().await?)
    }
}

/// Columns of an entry, as [`entry_row`] reads them.
const ENTRY_COLUMNS: &str = "kind, name, uid, revision, created_at, updated_at, manifest";

fn entry_row(row: &Row<'_>) -> airfleet_sql::Result<Stored> {
    let kind = kind_column(row, 0)?;
    Ok(Stored {
        entry: parse_manifest(kind, row.text(6)?).map_err(|error| row.corrupt(6, error))?,
        uid: row.get(2)?,
        revision: Revision(row.get(3)?),
        created_at: row.get(4)?,
        updated_at: row.get(5)?,
    })
}

fn kind_column(row: &Row<'_>, column: usize) -> airfleet_sql::Result<Kind> {
    Kind::from_word(row.text(column)?).ok_or_else(|| row.corrupt(column, "names no kind"))
}

fn parse_manifest(kind: Kind, json: &str) -> serde_json::Result<Entry> {
    Ok(match kind {
        Kind::Namespace => Entry::Namespace(serde_json::from_str::<Namespace>(json)?),
        Kind::Shard => Entry::Shard(serde_json::from_str::<Shard>(json)?),
    })
}

fn manifest_json(entry: &Entry) -> String {
    match entry {
        Entry::Namespace(namespace) => serde_json::to_string(namespace),
        Entry::Shard(shard) => serde_json::to_string(shard),
    }
    .expect("a manifest has text keys only, so it always serializes")
}

async fn head(tx: &mut Tx) -> airfleet_sql::Result<Head> {
    tx.fetch_one(
        "SELECT revision, sequence, namespaces, shards, events_floor
         FROM registry_state WHERE id = 1",
        params![],
        |row| {
            Ok(Head {
                revision: Revision(row.get(0)?),
                sequence: row.get(1)?,
                namespaces: row.get(2)?,
                shards: row.get(3)?,
                events_floor: Revision(row.get(4)?),
            })
        },
    )
    .await
}
