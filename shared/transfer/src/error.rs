//! Why something of a transfer was not done.

use airfleet_domain::{moves::Seen, roles::Role};

/// Why something of a transfer was not done. Never holds a password or a row.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database refused or failed.
    #[error("cannot {doing}")]
    Database {
        /// What was tried.
        doing: &'static str,
        /// Why it failed.
        source: sqlx::Error,
    },
    /// There is something that would be left behind, or moved wrongly.
    #[error("the schema has what is not understood: {}", .0.join(", "))]
    NotUnderstood(Vec<String>),
    /// There is no Airflow in the database.
    #[error("the database has no tables of Airflow; is it Airflow's, and migrated?")]
    NotAirflow,
    /// The ownership fence is not installed.
    #[error("the ownership fence is not installed; run airfleet-agent fence install")]
    NoFence,
    /// A later order was obeyed already.
    #[error(
        "generation {} (revision {}) of the namespace was obeyed before; {} ({}) is overtaken",
        seen.generation.0, seen.revision.0, told.generation.0, told.revision.0
    )]
    Overtaken {
        /// The order.
        told: Seen,
        /// The one that was obeyed.
        seen: Seen,
    },
    /// The shard is not what it has to be.
    #[error("the namespace is {found} on this shard, and has to be {needed}")]
    NotInRole {
        /// What it is; "unknown" where no order was ever obeyed.
        found: String,
        /// What it has to be.
        needed: Role,
    },
    /// The fence does not hold.
    #[error("{0} DAGs of the namespace are not paused, or their fence is open")]
    NotFenced(i64),
    /// A table comes with other columns than it has here.
    #[error("table {table} comes with other columns than it has here")]
    SchemaDiffers {
        /// The table.
        table: String,
    },
    /// What came is not what was sent.
    #[error("what came of {table} is damaged: {what}")]
    Damaged {
        /// The table.
        table: String,
        /// In words.
        what: String,
    },
    /// Rows refer to something that this shard does not have.
    #[error(
        "{rows} rows of {table} refer to something that this shard does not have; were all its \
         files parsed?"
    )]
    Unresolved {
        /// The table.
        table: String,
        /// How many. Count.
        rows: i64,
    },
    /// What was installed reads otherwise than what was sent.
    #[error("what was taken in differs from what was sent: {0}")]
    Differs(String),
    /// What went ahead is too different from what is there now.
    #[error("everything is sent, since what went ahead is not what it was: {0}")]
    AheadOutdated(&'static str),
    /// A row is larger than can be sent.
    #[error("a row of {table} has {bytes} bytes; at most {} can be moved", crate::copy::ROW_MAX)]
    RowTooLarge {
        /// The table.
        table: String,
        /// Its size. Bytes.
        bytes: usize,
    },
    /// Tasks still run.
    #[error("{running} running, {queued} queued, {deferred} deferred task instances are left")]
    NotDrained {
        /// Count.
        running: i64,
        /// Count.
        queued: i64,
        /// Count.
        deferred: i64,
    },
    /// The other side of a channel is gone, or pieces came in a wrong order.
    #[error("{0}")]
    Interrupted(&'static str),
    /// Something that is not safe in SQL.
    #[error("{0:?} is no prefix of dag_ids")]
    BadPrefix(String),
}

impl Error {
    pub(crate) fn of(doing: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self::Database { doing, source }
    }

    /// Stable name in UPPER_SNAKE_CASE, for obstacles.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Database { source, .. } => match sqlstate(source).as_deref() {
                Some("42501" | "25006") => "DATABASE_NOT_ALLOWED",
                Some("55P03" | "57014" | "40001" | "40P01") => "DATABASE_BUSY",
                _ => "DATABASE_FAILED",
            },
            Self::NotUnderstood(_) => "SCHEMA_NOT_UNDERSTOOD",
            Self::NotAirflow => "NOT_AIRFLOW",
            Self::NoFence => "FENCE_MISSING",
            Self::Overtaken { .. } => "ORDER_OVERTAKEN",
            Self::NotInRole { .. } => "NOT_IN_ROLE",
            Self::NotFenced(_) => "NOT_FENCED",
            Self::SchemaDiffers { .. } => "SCHEMA_DIFFERS",
            Self::Damaged { .. } => "COPY_DAMAGED",
            Self::Unresolved { .. } => "COPY_UNRESOLVED",
            Self::Differs(_) => "COPY_DIFFERS",
            Self::AheadOutdated(_) => "AHEAD_OUTDATED",
            Self::RowTooLarge { .. } => "ROW_TOO_LARGE",
            Self::NotDrained { .. } => "NOT_DRAINED",
            Self::Interrupted(_) => "COPY_INTERRUPTED",
            Self::BadPrefix(_) => "BAD_PREFIX",
        }
    }

    /// Whether the same may succeed when it is done again, without anybody's help.
    pub fn is_transient(&self) -> bool {
        matches!(
            self.code(),
            "DATABASE_BUSY"
                | "DATABASE_FAILED"
                | "COPY_INTERRUPTED"
                | "COPY_DAMAGED"
                | "AHEAD_OUTDATED"
        )
    }
}

fn sqlstate(error: &sqlx::Error) -> Option<String> {
    error.as_database_error()?.code().map(std::borrow::Cow::into_owned)
}
