//! The database under a service: the only place that knows which engine it is.
//!
//! [`Db`] is SQLite (one file, one process) or PostgreSQL (several replicas), chosen by URL. The
//! SQL is one text for both: `$n` binds, columns of TEXT and BIGINT, JSON as TEXT, microseconds
//! for time, `ON CONFLICT … DO UPDATE … RETURNING`. What runs where, and at which isolation, is
//! decided here:
//!
//! * [`write_tx!`] runs a block as one serializable transaction (`BEGIN IMMEDIATE` on SQLite,
//!   `SERIALIZABLE` on PostgreSQL) and runs it again, boundedly and with jitter, when it lost
//!   against another writer. A plain read-then-write inside it loses nothing.
//! * [`Db::read`] is one consistent snapshot and cannot write.
//! * [`Db::migrate`] brings a service's own tables up to date; several services may share one
//!   database.
//! * [`lease`] elects one leader among replicas and refuses a stale one's writes.
//! * [`Error`] says what a caller can do about a failure; nobody else looks at codes or messages.
//!
//! Invariants: a write that was answered `Ok` survives the process (`kill -9`), and by default
//! also a power cut; a transaction in which any statement failed is never committed; every wait
//! (for a connection, a lock, an answer) is bounded.
//!
//! PostgreSQL is spoken through sqlx; SQLite through rusqlite on threads of its own, because a
//! restart has to read a whole table: a million rows of nine columns took 1.2 s this way, 7 s
//! through sqlx's SQLite driver and 12 s through its `Any` driver (2 cores, same file).
//!
//! What this crate must not know: any service's tables, and what a row means.

mod db;
mod error;
pub mod lease;
mod migrate;
mod options;
mod postgres;
mod sqlite;
mod tx;
mod value;

pub use db::{Attempts, Counters, Db, Engine};
pub use error::{ConstraintKind, Error, Outage, Result};
pub use migrate::Migration;
pub use options::{Durability, Options};
pub use tx::Tx;
pub use value::{FromColumn, Row, Sql, Value, placeholders, prefix_end};
