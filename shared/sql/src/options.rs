//! Limits and guarantees of a database handle.

use std::time::Duration;

/// What a committed write survives on SQLite. PostgreSQL is configured on its server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// A power cut (`synchronous=FULL`: the log is synced at every commit). The default, because
    /// an owner that was told to other machines must not be forgotten.
    #[default]
    PowerLoss,
    /// The end of the process, `kill -9` included, but not of the machine
    /// (`synchronous=NORMAL`). For tests and bulk loads.
    ProcessCrash,
}

/// Limits and guarantees of a [`Db`](crate::Db).
#[derive(Clone, Debug)]
pub struct Options {
    /// Shown in the server's list of connections.
    pub application_name: String,
    /// Connections: all of them on PostgreSQL, readers on SQLite (which has one writer besides).
    pub max_connections: u32,
    /// Longest wait for a connection, or for the writer's turn.
    pub acquire_timeout: Duration,
    /// Longest run of one statement.
    pub statement_timeout: Duration,
    /// Longest run of a [`Tx::scan`](crate::Tx::scan) or of all migrations.
    pub scan_timeout: Duration,
    /// How often a write is tried when it loses against other writers.
    pub write_attempts: u32,
    /// Longest time spent on all tries of one write.
    pub write_budget: Duration,
    /// What a committed write survives on SQLite.
    pub durability: Durability,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            application_name: "airfleet".to_owned(),
            max_connections: 8,
            acquire_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(10),
            scan_timeout: Duration::from_mins(2),
            write_attempts: 30,
            write_budget: Duration::from_secs(10),
            durability: Durability::PowerLoss,
        }
    }
}
