//! Pools, variables and connections that Airfleet keeps on a shard.
//!
//! Responsible for finding out how what is declared for a namespace differs from what is there
//! ([`judge`], pure), and for making it so ([`look`], [`apply`]). It must not know where values come
//! from nor why something is declared.
//!
//! # What holds
//! - Only what `airfleet_owned` says to be the namespace's is ever changed or removed. It is written
//!   in the transaction that makes the thing, so that a killed agent never takes over what somebody
//!   else made.
//! - What was changed by somebody else is told apart from what the manifest changed by the digest of
//!   the declaration that was last made true.
//! - A value is never part of a text for people.

mod judge;
mod rows;

use std::collections::BTreeMap;

pub(crate) use self::judge::{Change, Difference, judge};
use super::metadata::{Bind, Error, Transaction};
use crate::secrets::Cipher;

/// What something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// A pool.
    Pool,
    /// A variable.
    Variable,
    /// A connection.
    Connection,
}

impl Kind {
    /// Every kind.
    pub(crate) const ALL: [Kind; 3] = [Kind::Pool, Kind::Variable, Kind::Connection];

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Pool => "pool",
            Kind::Variable => "variable",
            Kind::Connection => "connection",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// What one thing is, by kind and name.
pub(crate) type Key = (Kind, String);

/// A thing as it is declared, or as it is found.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// A pool.
    Pool {
        /// Slots; -1 for no limit. Count.
        slots: i64,
        /// For people.
        description: String,
        /// Whether deferred tasks take slots.
        include_deferred: bool,
    },
    /// The text of a variable. Secret.
    Variable(String),
    /// A connection.
    Connection(Box<Connection>),
    /// Something that is there and cannot be read, such as a value under another key.
    Unreadable,
}

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Pool { slots, .. } => write!(f, "Pool({slots})"),
            Value::Variable(_) => f.write_str("Variable(…)"),
            Value::Connection(_) => f.write_str("Connection(…)"),
            Value::Unreadable => f.write_str("Unreadable"),
        }
    }
}

/// The fields of a connection. `password` and `extra` are secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Connection {
    /// Such as `postgres`.
    pub(crate) conn_type: String,
    /// For people.
    pub(crate) description: String,
    /// Host.
    pub(crate) host: String,
    /// Login.
    pub(crate) login: String,
    /// Password.
    pub(crate) password: String,
    /// Schema, or the database's name.
    pub(crate) schema: String,
    /// Port.
    pub(crate) port: Option<i64>,
    /// JSON.
    pub(crate) extra: String,
}

/// What is declared of one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Declared {
    /// What it is to be.
    pub(crate) value: Value,
    /// Digest of it. Tells nothing of a secret to whoever does not have the shard's key.
    pub(crate) digest: String,
}

/// All that is declared for a namespace. None is declared too, and left as it is: what it is to be
/// cannot be known at present.
pub(crate) type Declarations = BTreeMap<Key, Option<Declared>>;

/// What is noted of a thing that Airfleet made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owned {
    /// For which namespace.
    pub(crate) namespace: String,
    /// Digest of the declaration that was last made true.
    pub(crate) digest: String,
}

/// What is found of the things that are declared for a namespace, or were made for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// What Airfleet made.
    pub(crate) owned: BTreeMap<Key, Owned>,
    /// What is there.
    pub(crate) present: BTreeMap<Key, Value>,
    /// Pools that tasks wait for or run in.
    pub(crate) busy_pools: Vec<String>,
}

/// Looks at what is declared for `namespace` and at what was made for it.
pub(crate) async fn look(
    tx: &mut Transaction,
    cipher: &Cipher,
    namespace: &str,
    declared: &Declarations,
) -> Result<Found, Error> {
    rows::look(tx, cipher, namespace, declared).await
}

/// Makes each change, in the transaction of the caller, who has looked in the same one.
pub(crate) async fn apply(
    tx: &mut Transaction,
    cipher: &Cipher,
    namespace: &str,
    changes: &[Change],
) -> Result<(), Error> {
    let lock = "SELECT pg_advisory_xact_lock(hashtext('airfleet_owned'))";
    tx.execute("lock what Airfleet owns", lock, &[]).await?;
    for change in changes {
        rows::apply(tx, cipher, namespace, change).await?;
    }
    Ok(())
}

/// Marks a thing as Airfleet's.
async fn own(tx: &mut Transaction, key: &Key, namespace: &str, digest: &str) -> Result<(), Error> {
    tx.execute(
        "note what Airfleet owns",
        "INSERT INTO {schema}.airfleet_owned (kind, name, namespace, declared) \
         VALUES ($1, $2, $3, $4) ON CONFLICT (kind, name) DO UPDATE SET declared = $4 \
         WHERE airfleet_owned.namespace = $3",
        &[Bind::Text(key.0.name()), Bind::Text(&key.1), Bind::Text(namespace), Bind::Text(digest)],
    )
    .await?;
    Ok(())
}
