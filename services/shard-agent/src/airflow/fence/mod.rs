//! The ownership fence in a shard's metadata database.
//!
//! Responsible for the tables and the trigger that keep a namespace paused which this shard does
//! not own, whatever a user, a script or an Airflow command does: see [`install`], `install.sql`
//! and ADR 9. `install_2.sql` adds a table of what is noted of moves. What moves namespaces through it is in [`gate`].
//!
//! # What holds
//! - A DAG whose longest registered prefix is not open is paused, or becomes so in the transaction
//!   that writes its row. The trigger forces it and never raises: an error in a trigger ends the
//!   scheduler.
//! - The pause state that users gave a DAG is noted in the transaction that first overrides it, and
//!   given back in the one that lifts the fence. Trying to unpause a fenced DAG changes neither.
//! - Whoever is behind is refused by the database: the row of a namespace holds the last order that
//!   was obeyed, and every change compares with it under its lock.
//!
//! It must not know why a namespace is to be open or closed.

pub mod gate;
mod setup;

pub(crate) use self::setup::trigger_state;
pub use self::setup::{
    Installed, NamespaceStatus, Removal, RemoveError, Status, TriggerState, install, remove, status,
};

/// Version of the tables and functions that this agent brings.
pub const VERSION: i64 = 2;
