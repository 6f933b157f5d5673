//! The agents' half of a move: a namespace's rows leave one shard's metadata database and arrive in
//! another's.
//!
//! Responsible for which rows are a namespace's ([`Catalog`]), for what speaks against a move
//! ([`inspect`]), for what still runs ([`drain`]), for how much will travel ([`estimate`]), for
//! rows as a stream ([`Export`]) and as an installation ([`Import`]), for what need not be sent twice
//! ([`Ahead`]), for where schedules go on ([`cursor`]), for proving that nothing was lost ([`proof`]),
//! for finding what came too late ([`stranded`]) and for clearing up afterwards ([`removal`]).
//!
//! # What holds
//! - A table, column or foreign key that no rule explains stops a move before it begins.
//! - A row of another namespace is neither read nor changed.
//! - What the target has is what the source sent, read back in the transaction that installs it.
//! - What an agent that was overtaken still does, changes nothing: every transaction that writes
//!   looks at the last order under its lock.
//! - Memory does not grow with the namespace.
//!
//! It must not know the wire, the router, or how the fence is closed and opened.

mod ahead;
mod catalog;
pub mod copy;
pub mod cursor;
mod database;
pub mod drain;
mod error;
mod estimate;
mod export;
mod import;
mod order;
mod preflight;
pub mod proof;
pub mod removal;
mod scope;
pub mod stranded;

pub use self::{
    ahead::{Ahead, RunName},
    catalog::Catalog,
    database::Database,
    error::Error,
    estimate::{TableSize, estimate},
    export::{Export, ExportOptions, Piece, Trailer},
    import::{Import, ImportOrder, Installed, Opened, forget},
    preflight::{Airflow, Look, inspect},
    scope::Scope,
};
